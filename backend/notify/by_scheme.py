"""Several notifiers behind one port: the target's scheme says which."""

from collections.abc import Mapping

from backend.notify.base import Notification, Notifier


class SchemeNotifier:
    """Hands each target to the notifier for its scheme."""

    name = "by scheme"

    def __init__(self, notifiers: Mapping[str, Notifier], otherwise: Notifier) -> None:
        """`otherwise` gets what has no notifier of its own, and says what is wrong with it."""
        self._notifiers = dict(notifiers)
        self._otherwise = otherwise

    def check_target(self, url: str) -> None:
        """See the port."""
        self._of(url).check_target(url)

    def send(self, notification: Notification) -> int | None:
        """See the port."""
        return self._of(notification.url).send(notification)

    def _of(self, url: str) -> Notifier:
        scheme, _, _ = url.partition(":")
        return self._notifiers.get(scheme.lower(), self._otherwise)
