"""When a long run gives up: a fault of the model at several clips in a row will come at the next one, too."""

FAULTS_IN_A_ROW = 3  # clips; one may be odd, and so may two


class FaultStreak:
    """Counts clips in a row at which the model failed as it never should."""

    def __init__(self) -> None:
        self._clips = 0

    def failed(self) -> bool:
        """Count a clip; give whether the run shall end with it."""
        self._clips += 1
        return self._clips >= FAULTS_IN_A_ROW

    def worked(self) -> None:
        """Count anew: the model has worked."""
        self._clips = 0
