"""What all connections of one stand-in share."""

from dataclasses import dataclass, field

from zbeam_daemon.standin.accounts import Accounts
from zbeam_daemon.standin.counts import Counts
from zbeam_daemon.standin.journal import Journal
from zbeam_daemon.standin.prefix_cache import PrefixCache
from zbeam_daemon.standin.rules import RuleBook
from zbeam_daemon.standin.scenario import Scenario


@dataclass(slots=True)
class State:
    """Shared by reference; only ever touched from the one hub's greenlets."""

    journal: Journal
    counts: Counts
    accounts: Accounts
    idle_timeout_s: float  # unless the scenario says otherwise
    cache: PrefixCache = field(default_factory=PrefixCache)
    rules: RuleBook = field(default_factory=lambda: RuleBook(Scenario()))
    connections: int = 0  # how many connections ever, for their names in the log
    ordinals: int = 0  # how many since the scenario was loaded, for connection_nth
    requests: int = 0

    def load(self, scenario: Scenario) -> None:
        """Act by `scenario` from now on; its rules count from here."""
        self.rules = RuleBook(scenario)
        self.accounts.use(scenario)
        self.ordinals = 0

    def idle_timeout(self) -> float:
        """Seconds that a connection may be idle before it is closed."""
        configured = self.rules.scenario.idle_timeout_s
        return self.idle_timeout_s if configured is None else configured
