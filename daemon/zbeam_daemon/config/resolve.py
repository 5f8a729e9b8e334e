"""Turns checked values into usable ones with the help of other files and the environment.

Keys are read, paths made absolute, proxy and CA file found. Every problem is added to those that
validation found, and no value that had a problem there is looked at again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from zbeam_daemon.config import curve_keys, target
from zbeam_daemon.config.keys import (
    KeySource,
    KeySourceError,
    expand,
    is_credential,
    looks_like_key,
    read_key,
)
from zbeam_daemon.config.schema import KeyPath
from zbeam_daemon.config.settings import section
from zbeam_daemon.config.validate import Checked
from zbeam_shared import curve


@dataclass(slots=True)
class Resolver:
    """Resolves one configuration in place; relative paths start at ``folder``.

    ``origins`` says where each value is from, ``ca_texts`` what stands in each upstream's CA
    file, ``consulted`` which files were looked at.
    """

    folder: Path
    environ: Mapping[str, str]
    checked: Checked
    origins: dict[KeyPath, str] = field(default_factory=dict)
    ca_texts: dict[str, str] = field(default_factory=dict)
    consulted: set[Path] = field(default_factory=set)

    def resolve(self, raw: Mapping[str, object]) -> None:
        """Work through the whole of ``checked``; ``raw`` says which upstreams there are."""
        values = self.checked.values
        for path in values:
            self.origins[path] = "file" if path in self.checked.in_file else "default"
        self._remote()
        upstreams = raw.get("upstream")
        for name, table in (upstreams if isinstance(upstreams, Mapping) else {}).items():
            if isinstance(table, Mapping):
                self._upstream(("upstream", name))

    def _remote(self) -> None:
        here = ("daemon", "remote")
        text = self.checked.values.get((*here, "server_key_file"))
        key_file = self._path((*here, "server_key_file"))
        folder = self._path((*here, "allowed_clients_dir"))
        self.consulted |= {path for path in (key_file, folder) if path is not None}
        try:
            if key_file is not None:
                curve_keys.read_server_key(key_file, self.environ)
        except KeySourceError as error:
            message = str(error)
            if isinstance(text, str) and curve.is_key(text.rpartition(" ")[2]):
                message = "expected a path; what stands there looks like the key itself"
            self.checked.report((*here, "server_key_file"), message)
        try:
            if folder is not None:
                curve_keys.check_folder(folder)
        except KeySourceError as error:
            self.checked.report((*here, "allowed_clients_dir"), str(error))

    def _path(self, path: KeyPath) -> Path | None:
        """Turn a configured text into an absolute path, in place."""
        text = self.checked.values.get(path)
        if not isinstance(text, str):
            return None
        try:
            self.checked.values[path] = full = expand(text, self.folder, self.environ)
        except KeySourceError as error:
            self.checked.report(path, str(error))
            return None
        return full

    def _upstream(self, here: KeyPath) -> None:
        values = self.checked.values
        self._key(here)
        self._ca(here)
        base_url = values.get((*here, "base_url"))
        if isinstance(base_url, str):
            try:
                values[*here, "base_url"] = base_url = target.normal_base_url(base_url)
            except target.TargetError as error:
                self.checked.report((*here, "base_url"), str(error))
            else:
                self._proxy(here, base_url)
                self._deepseek(here, base_url)
        self._together(here)

    def _key(self, here: KeyPath) -> None:
        values, report = self.checked.values, self.checked.report
        text = values.get((*here, "api_key_file"))
        credential = isinstance(text, str) and is_credential(text)
        file = self._path((*here, "api_key_file"))
        env_file = self._path((*here, "env_file"))
        self.consulted |= {path for path in (file, env_file) if path is not None}
        named = [n for n in ("api_key_env", "api_key_file") if (*here, n) in self.checked.in_file]
        if len(named) != 1:
            count = "neither is" if not named else "both are"
            report(here, f"expected exactly one of api_key_env and api_key_file, {count} set")
            return
        if named == ["api_key_file"] and env_file is not None:
            report((*here, "env_file"), "is read for api_key_env only, and api_key_file is set")
            return
        variable = values.get((*here, "api_key_env"))
        if named == ["api_key_file"]:
            if file is None:
                return
            source = KeySource(None, file, None, credential)
        elif isinstance(variable, str):
            source = KeySource(variable, None, env_file)
        else:
            return
        try:
            key, origin = read_key(source, self.environ)
        except KeySourceError as error:
            name = variable if file is None else text
            message = str(error)
            if isinstance(name, str) and "/" not in name and looks_like_key(name):
                kind = "the NAME of an environment variable" if file is None else "a path"
                message = f"expected {kind}; what stands there looks like the key itself"
            report((*here, named[0]), message)
            return
        values[*here, "api_key"], self.origins[*here, "api_key"] = key, origin

    def _ca(self, here: KeyPath) -> None:
        at = (*here, "ca_file")
        configured = self._path(at)
        if configured is None and at in self.checked.in_file:
            return
        if configured is not None:
            self.consulted.add(configured)
        try:
            path, origin, text = target.resolve_ca(configured, self.environ)
        except target.TargetError as error:
            self.checked.report(at, str(error))
            return
        self.checked.values[at], self.origins[at] = path, origin
        self.ca_texts[here[1]] = text

    def _proxy(self, here: KeyPath, base_url: str) -> None:
        at = (*here, "proxy")
        configured = self.checked.values.get(at)
        if configured is None and at in self.checked.in_file:
            return
        try:
            proxy, origin = target.resolve_proxy(
                str(configured) if configured is not None else None, base_url, self.environ
            )
        except target.TargetError as error:
            self.checked.report(at, str(error))
            return
        self.checked.values[at], self.origins[at] = proxy or "off", origin

    def _deepseek(self, here: KeyPath, base_url: str) -> None:
        model = self.checked.values.get((*here, "generation", "model"))
        problem = target.check_model(base_url, model) if isinstance(model, str) else None
        if problem is not None:
            self.checked.report((*here, "generation", "model"), problem)
        tokens = self.checked.values.get((*here, "generation", "max_tokens"))
        limit = target.DEEPSEEK_MAX_TOKENS
        if target.is_deepseek(base_url) and isinstance(tokens, int) and tokens > limit:
            at = (*here, "generation", "max_tokens")
            self.checked.report(at, f"DeepSeek takes at most {limit}, found {tokens}")

    def _together(self, here: KeyPath) -> None:
        """Check what only makes sense together."""
        values, report = self.checked.values, self.checked.report
        for low, high in (("pool.warm", "pool.max_sessions"), ("retry.base_s", "retry.cap_s")):
            a, b = (values.get((*here, *name.split("."))) for name in (low, high))
            if isinstance(a, int | float) and isinstance(b, int | float) and a > b:
                report((*here, *low.split(".")), f"expected at most {high} ({b:g}), found {a:g}")
        self._families((*here, "limits", "families"))

    def _families(self, at: KeyPath) -> None:
        values, in_file = self.checked.values, self.checked.in_file
        families = section(values, at)
        owner: dict[str, str] = {}
        # What the file says comes first, so that a later release may extend a default family
        # without breaking a file that puts the same model elsewhere.
        for name in sorted(families, key=lambda name: (*at, name) not in in_file):
            kept = []
            for model in families[name]:
                if model not in owner:
                    owner[model] = name
                    kept.append(model)
                elif (*at, name) in in_file:
                    message = f"{model} is in {owner[model]} too: one model has one family"
                    self.checked.report((*at, name), message)
            values[*at, name] = tuple(kept)
