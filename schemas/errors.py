"""Errors meant for people. The command line prints their message and exits with status 1, without a traceback.

A message says what is wrong and where, what was expected, what was found, and the command that mends it.
"""


class UserError(ValueError):
    """Something the user can mend: the message says how."""


class DataError(UserError):
    """The data directory, a table, an image or a calibration is not what nuScenes v1.0 promises."""


class CacheError(UserError):
    """The teacher cache is absent, foreign, incomplete or damaged for what was asked of it."""


class DiskError(CacheError):
    """The disk or the file system refuses: whatever is tried next will most likely fail as well."""


class CheckpointError(UserError):
    """A weights or checkpoint file does not fit the detector or the run."""


class TeacherError(UserError):
    """A teacher of the user's own does not do what it promises: no scene can be cached from it."""


class NotFiniteError(UserError):
    """Training has met NaN or infinity. Processes that train together raise it together, at the same step."""


class RecipeError(UserError):
    """A recipe or an option has a value that cannot work."""
