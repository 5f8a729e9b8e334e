"""The answer that arrives is the answer that was sent, however it is cut, asked for and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Daemon, Peer, Start, chat
from support.scripted import Scripted, answer_with, event, stream
from support.standin import ANY_KEY, Standin
from support.waiting import wait_until
from zbeam_shared import messages as m

AWKWARD = 'Grüße: 激光清洗 🔥, e\u0301 & <b>"quoted"</b>\\n, \t, data: x, [DONE], \u2028 end'


def deltas_of(peer: Peer, **message: Any) -> tuple[list[dict[str, Any]], m.Outcome]:
    """All deltas of a streamed request, and its outcome."""
    peer.send(m.Generate(**message))
    found = peer.receive_until(m.Result, m.Error)
    last = found[-1]
    assert isinstance(last, m.Result), last
    pieces: list[Any] = []
    for message in found:
        if isinstance(message, m.Delta):
            pieces += message.deltas
    return pieces, last.outcome


def joined(pieces: list[dict[str, Any]], name: str) -> str:
    return "".join(piece.get(name, "") for piece in pieces)


@pytest.mark.parametrize("cut", ["chunk_bytes = 1", "chunk_bytes = 7", "http_chunk = 3"])
def test_text_that_is_cut_anywhere_arrives_whole(start: Start, standin: Standin, cut: str) -> None:
    standin.set_scenario(f"[defaults]\n{cut}\n")
    daemon = start(warm=0)
    peer = daemon.peer()
    for _ in range(2):  # and leaves a session that can be used again
        pieces, outcome = deltas_of(peer, chat=chat(f"Repeat exactly: {AWKWARD}"))
        assert outcome.content == AWKWARD
        assert joined(pieces, "content") == AWKWARD
    assert standin.counts()["connections_opened"] == 1


def test_reasoning_comes_apart_from_the_content(start: Start) -> None:
    peer = start(warm=0).peer()
    pieces, outcome = deltas_of(
        peer, chat=chat("steel", thinking={"type": "enabled"}, reasoning_effort="low")
    )
    assert outcome.reasoning
    assert joined(pieces, "reasoning_content") == outcome.reasoning
    assert joined(pieces, "content") == outcome.content
    assert outcome.usage is not None
    assert outcome.usage.reasoning_tokens == 12
    names = [name for piece in pieces for name in piece]
    assert names.index("reasoning_content") < names.index("content")


TOOL = {
    "type": "function",
    "function": {
        "name": "find_material",
        "description": "Looks a material up",
        "parameters": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "grade": {"type": "integer"}},
            "required": ["name", "grade"],
        },
    },
}


def test_tool_calls_are_put_together_from_their_pieces(start: Start, standin: Standin) -> None:
    peer = start(warm=0).peer()
    asked = chat("steel", tools=[TOOL], tool_choice="required")
    pieces, outcome = deltas_of(peer, chat=asked)
    assert outcome.finish_reason == "tool_calls"
    assert isinstance(outcome.tool_calls, list)
    (call,) = outcome.tool_calls
    assert call["id"].startswith("call_")
    assert call["function"]["name"] == "find_material"
    arguments = json.loads(call["function"]["arguments"])
    assert set(arguments) == {"name", "grade"}
    streamed = "".join(
        part["function"].get("arguments", "")
        for piece in pieces
        for part in piece.get("tool_calls", [])
    )
    assert streamed == call["function"]["arguments"]


def test_logprobs_come_for_every_token(start: Start, standin: Standin) -> None:
    standin.set_scenario("[defaults]\ntokens = 9\n")
    peer = start(warm=0).peer()
    pieces, outcome = deltas_of(peer, chat=chat("steel", logprobs=True, top_logprobs=2))
    assert isinstance(outcome.logprobs, dict)
    tokens = outcome.logprobs["content"]
    assert "".join(token["token"] for token in tokens) == outcome.content
    assert all(len(token["top_logprobs"]) == 2 for token in tokens)
    streamed = [t for piece in pieces for t in (piece.get("logprobs") or {}).get("content", [])]
    assert streamed == tokens


def test_fields_that_nobody_knows_yet_are_kept(start: Start, standin: Standin) -> None:
    standin.set_scenario(
        """[defaults]
tokens = 3
extra_fields = {tomorrow = {a = [1, "ü"]}}
extra_delta_fields = {mood = "calm"}
"""
    )
    peer = start(warm=0).peer()
    pieces, outcome = deltas_of(peer, chat=chat("steel"))
    assert any(piece.get("mood") == "calm" for piece in pieces)
    assert outcome.extra["tomorrow"] == {"a": [1, "ü"]}
    message = outcome.extra["message"]
    assert isinstance(message, dict)
    assert str(message["mood"]).startswith("calm")


@pytest.mark.parametrize("place", ["finish", "separate"])
def test_usage_is_found_wherever_it_comes(start: Start, standin: Standin, place: str) -> None:
    standin.set_scenario(f'[defaults]\ntokens = 7\nusage_chunk = "{place}"\n')
    _, outcome = deltas_of(start(warm=0).peer(), chat=chat("steel"))
    assert outcome.usage is not None
    assert outcome.usage.completion_tokens == 7
    assert outcome.usage.total_tokens == outcome.usage.prompt_tokens + 7
    assert outcome.finish_reason == "stop"


def test_an_answer_that_is_not_streamed_is_the_same(start: Start) -> None:
    peer = start(warm=0).peer()
    asked = chat("titanium", thinking={"type": "enabled"}, tools=[TOOL], max_tokens=300)
    pieces, streamed = deltas_of(peer, chat=asked)
    nothing, plain = deltas_of(peer, chat=asked, stream=False)
    assert pieces
    assert nothing == []
    for name in ("content", "reasoning", "tool_calls", "model", "finish_reason"):
        assert getattr(plain, name) == getattr(streamed, name), name
    assert plain.usage is not None
    assert streamed.usage is not None
    assert plain.usage.completion_tokens == streamed.usage.completion_tokens


def test_thinking_is_what_the_configuration_says_unless_the_request_does(start: Start) -> None:
    daemon = start(warm=0)
    peer = daemon.peer()

    def reasons(**more: Any) -> bool:
        peer.send(m.Generate(chat=chat("steel", **more)))
        return bool(peer.result().reasoning)

    assert not reasons()  # the API's own default is to think
    assert reasons(thinking={"type": "enabled"})
    daemon.edit('thinking = "disabled"', 'thinking = "enabled"')
    daemon.wait_for("config.reloaded")
    assert reasons()
    assert not reasons(thinking={"type": "disabled"})


def test_the_whole_chat_request_goes_upstream_as_it_was_given(start: Start) -> None:
    with Scripted() as api:
        peer = start(base_url=api.url, warm=0).peer()
        asked = {
            "messages": [
                {"role": "system", "content": "You are terse.", "name": "boss"},
                {"role": "user", "content": [{"type": "text", "text": "grüß"}]},
                {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": []},
                {"role": "tool", "tool_call_id": "call_1", "content": "7"},
            ],
            "model": "deepseek-v4-pro",
            "thinking": {"type": "enabled"},
            "reasoning_effort": "max",
            "max_tokens": 77,
            "temperature": 0.7,
            "top_p": 0.9,
            "presence_penalty": -1.5,
            "frequency_penalty": 2,
            "stop": ["END", "\n\n"],
            "response_format": {"type": "json_object"},
            "tools": [TOOL],
            "tool_choice": {"type": "function", "function": {"name": "find_material"}},
            "logprobs": True,
            "top_logprobs": 20,
            "user_id": "someone-1",
            "field_of_tomorrow": {"deep": [1, None, True, 1.5]},
        }
        peer.send(m.Generate(chat=asked, stream=False))
        assert peer.result().content == "fine"
        (received,) = api.received
    assert (received.method, received.path) == ("POST", "/chat/completions")
    assert received.json == {**asked, "stream": True, "stream_options": {"include_usage": True}}
    assert received.headers["authorization"] == f"Bearer {ANY_KEY}"
    assert received.headers["content-type"] == "application/json"
    assert received.headers["accept-encoding"] == "identity"
    assert "cookie" not in received.headers


def test_what_a_request_leaves_out_comes_from_the_configuration(start: Start) -> None:
    with Scripted() as api:
        start(base_url=api.url, warm=0).client("generate", "hello")
        (received,) = api.received
    assert received.json == {
        "messages": [{"role": "user", "content": "hello"}],
        "model": "deepseek-flash",
        "max_tokens": 4000,
        "temperature": 0.1,
        "thinking": {"type": "disabled"},
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize("wanted", ["prefix", "strict tool", "neither"])
def test_what_the_api_takes_only_below_beta_is_sent_there(start: Start, wanted: str) -> None:
    with Scripted() as api:
        peer = start(base_url=api.url, warm=0).peer()
        asked = chat("steel")
        if wanted == "prefix":
            last = {"role": "assistant", "content": "Steel is", "prefix": True}
            asked["messages"].append(last)
        elif wanted == "strict tool":
            function = {**TOOL["function"], "strict": True}  # type: ignore[dict-item]
            asked["tools"] = [{"type": "function", "function": function}]
        peer.send(m.Generate(chat=asked))
        peer.result()
        (received,) = api.received
    beta = "" if wanted == "neither" else "/beta"
    assert received.path == f"{beta}/chat/completions"


def test_prefix_json_and_stop_work_through_the_command(
    start: Start, standin: Standin, tmp_path: Path
) -> None:
    daemon = start(warm=0)
    body = {
        "messages": [
            {"role": "user", "content": "Write about steel"},
            {"role": "assistant", "content": "Steel", "prefix": True},
        ]
    }
    file = tmp_path / "body.json"
    file.write_text(json.dumps(body))
    found = daemon.json("generate", "--request", str(file))
    assert found["ok"], found
    assert standin.events("request")[-1]["path"] == "/beta/chat/completions"
    as_json = daemon.json("generate", "--json-output", "Describe steel as JSON")
    assert isinstance(json.loads(as_json["content"]), dict)
    stopped = daemon.json("generate", "--stop", "stop", "Repeat exactly: before stop after")
    assert stopped["content"] == "before "
    assert stopped["finish_reason"] == "stop"


def test_a_client_that_gives_no_credit_holds_up_nobody(start: Start, standin: Standin) -> None:
    standin.set_scenario("[defaults]\ntokens = 3000\n")
    daemon = start(warm=0)
    peer = daemon.peer()
    peer.generate(credit=1)
    first = peer.receive_until(m.Delta)[-1]
    standin.wait_for("generation_finished", timeout=20)  # upstream is read to its end
    gate = wait_until(lambda: _free(daemon))
    assert gate["in_use"] == 0
    last = peer.outcome()  # the last delta needs no credit
    assert isinstance(last, m.Result)
    assert isinstance(first, m.Delta)
    assert last.outcome.usage is not None
    assert last.outcome.usage.completion_tokens == 3000


def _free(daemon: Daemon) -> Any:
    gate = daemon.ask(m.Status())["upstreams"]["deepseek"]["gate"]["flash"]
    return gate if gate["in_use"] == 0 else None


def test_deltas_of_a_slow_reader_are_merged_and_complete(start: Start, standin: Standin) -> None:
    standin.set_scenario("[defaults]\ntokens = 2000\n")
    peer = start(warm=0).peer()
    peer.generate(credit=2)
    found = peer.receive_until(m.Result, m.Error)
    deltas = [message for message in found if isinstance(message, m.Delta)]
    assert len(deltas) <= 3
    text = "".join(joined(delta.deltas, "content") for delta in deltas)  # type: ignore[arg-type]
    assert isinstance(found[-1], m.Result)
    assert text == found[-1].outcome.content


def test_many_streams_at_once_are_not_mixed_up(start: Start, standin: Standin) -> None:
    standin.set_scenario("[defaults]\ntoken_delay_s = 0.002\n")
    peer = start(warm=4).peer()
    wanted = {b"%d" % n: f"{n}: {AWKWARD} " + f"{n} " * 40 + "." for n in range(80)}
    for request_id, text in wanted.items():
        peer.generate(f"Repeat exactly: {text}", request_id, credit=10_000)
    pieces: dict[bytes, str] = dict.fromkeys(wanted, "")
    open_requests = set(wanted)
    while open_requests:
        request_id, message = peer.receive(20)
        if isinstance(message, m.Delta):
            pieces[request_id] += joined(message.deltas, "content")  # type: ignore[arg-type]
        elif isinstance(message, m.Result | m.Error):
            assert isinstance(message, m.Result), message
            assert message.outcome.content == wanted[request_id]
            open_requests.remove(request_id)
    assert pieces == wanted


def test_waiting_for_the_api_is_told_with_its_signs_of_life(start: Start, standin: Standin) -> None:
    standin.set_scenario("[defaults]\nwait_s = 3\nkeep_alive_interval_s = 0.2\n")
    peer = start(warm=0).peer()
    peer.generate()
    found = peer.receive_until(m.Result, m.Error)
    waits = [message for message in found if isinstance(message, m.Progress)]
    assert waits
    assert waits[0].waiting_for == "beginning"
    assert waits[0].keep_alives >= 3
    assert waits[0].waited_s >= 1
    assert isinstance(found[-1], m.Result)


def test_events_in_other_line_endings_and_pieces_are_read(start: Start) -> None:
    whole = event({"content": "a"}) + event({"content": "ö"}, "stop") + b"data: [DONE]\n\n"
    crlf = whole.replace(b"\n", b"\r\n")
    with Scripted(stream(lambda: iter([b": hello\n\nevent: x\nid: 3\n", crlf]))) as api:
        peer = start(base_url=api.url, warm=0).peer()
        peer.generate()
        assert peer.result().content == "aö"


def test_a_very_long_answer_arrives_whole(start: Start) -> None:
    piece = "0123456789abcdef" * 4096
    with Scripted(answer_with([piece] * 100)) as api:
        daemon = start(base_url=api.url, warm=0)
        found = daemon.client("generate", "--stream", "hello")
        assert found.returncode == 0, found.stderr
        assert found.stdout == piece * 100 + "\n"
        assert daemon.json("generate", "hello")["content"] == piece * 100


def test_the_command_prints_streams_and_writes_exactly_the_answer(
    start: Start, tmp_path: Path
) -> None:
    daemon = start(warm=0)
    prompt = f"Repeat exactly: {AWKWARD}"
    for option in ("--stream", "--no-stream"):
        done = daemon.client("generate", option, prompt)
        assert (done.returncode, done.stdout) == (0, f"{AWKWARD}\n")
    target = tmp_path / "out.txt"
    done = daemon.client("generate", "-o", str(target), prompt)
    assert (done.returncode, done.stdout) == (0, "")
    assert target.read_text() == AWKWARD
    looped = daemon.client("generate", input=prompt)
    assert looped.stdout == f"{AWKWARD}\n"


def test_generate_json_has_every_field_that_scripts_rely_on(start: Start) -> None:
    daemon = start(
        warm=0,
        extra="""[upstream.deepseek.prices.deepseek-flash]
hit = 0.0
miss = 1000.0
output = 1000000.0
""",
    )
    found = daemon.json("generate", "--max-tokens", "5", "steel")
    assert found.pop("extra")
    assert set(found) == {
        *("ok", "content", "reasoning", "model", "finish_reason", "usage", "cost", "attempts"),
        *("session", "timings_ms", "request_id", "trace_id"),
    }
    assert found["ok"] is True
    assert (found["model"], found["finish_reason"]) == ("deepseek-flash", "length")
    assert set(found["usage"]) == {
        *("prompt_tokens", "completion_tokens", "total_tokens"),
        *("prompt_cache_hit_tokens", "prompt_cache_miss_tokens", "reasoning_tokens"),
    }
    missed = found["usage"]["prompt_cache_miss_tokens"]
    assert found["cost"] == pytest.approx(5 + missed / 1000)
    (attempt,) = found["attempts"]
    assert set(attempt) == {"status", "error", "elapsed_ms", "session"}
    assert (attempt["status"], attempt["error"]) == (200, None)
    assert set(found["session"]) == {"id", "age_s", "reused"}
    assert set(found["timings_ms"]) == {"queue", "connect", "first_token", "total"}
    assert 0 < found["timings_ms"]["first_token"] <= found["timings_ms"]["total"]
    assert found["trace_id"]
    assert daemon.wait_for(f"request.done request={found['request_id']}")


def test_the_cost_of_an_unknown_model_is_unknown_and_not_nothing(start: Start) -> None:
    assert start(warm=0).json("generate", "steel")["cost"] is None
