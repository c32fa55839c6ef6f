"""Delivers nowhere: for installations that let nothing out."""

import logging

from backend.notify.base import Notification

logger = logging.getLogger(__name__)


class NullNotifier:
    """Takes any target and counts every notification as delivered."""

    name = "null"

    def check_target(self, url: str) -> None:
        """Nothing is ever called, so nothing need be refused."""

    def send(self, notification: Notification) -> int | None:
        """Leaves a line in the log, without the URL, which may hold a secret."""
        logger.info("notification %s (%s) dropped: notifications are off", notification.id, notification.type)
        return None
