"""Everything that semedit raises.

SemeditError
├── InvalidEditError (ValueError)          an edit, or a line of an import, is not one
├── EditNotFoundError (KeyError)           no edit has this id
├── EditRetiredError (ValueError)          the edit of this id is retired
├── DuplicateEditError (ValueError)        an edit of this id, or with this prompt, exists already
├── NothingToUndoError (ValueError)        no change is left to undo
├── StoreError (RuntimeError)              the memory cannot be opened, read or written
│   ├── StoreUnreachableError              the memory's server is away
│   └── EncoderMismatchError               the memory's vectors come from another encoder
├── InvalidQueryError (ValueError)         a query that cannot be routed
├── UnsupportedArgumentError (TypeError)   `generate` was given what an edited row cannot honour
├── ContextOverflowError (ValueError)      a prompt with its edits is longer than the model can read
├── WrapError (TypeError)                  this model cannot be wrapped
├── LayerError (ValueError)                the model has no such layer, or none that an adaptor can stand at
├── AdaptorConfigError (ValueError)        settings of an adaptor that do not go together
├── CalibrationError (ValueError)          traffic, positives or a target that no threshold can be chosen by
├── DatasetError (ValueError)              a data set's file, or a record of it, is not what it must be
├── EvaluationError (ValueError)           what is to be evaluated, or how, does not go together
└── LoadError (OSError)                    a model or an encoder cannot be loaded

and warns of:

SemeditWarning (UserWarning)
├── EditConflictWarning                    a new edit is in the scope of an edit with another target
├── CalibrationWarning                     the memory has outgrown its calibration, or none is of all its namespaces
├── CutAnswerWarning                       an answer does not fit
└── AdaptorWarning                         an edit was not learned, was learned for another model, or radii overlap
"""


class SemeditError(Exception):
    """What every error of this package is."""


class InvalidEditError(SemeditError, ValueError):
    """An edit that cannot be taken, or a line of an import that is not one."""


class EditNotFoundError(SemeditError, KeyError):
    """No edit has this id."""

    def __str__(self) -> str:
        # KeyError would show the message in quotes
        return str(self.args[0])


class EditRetiredError(SemeditError, ValueError):
    """The edit of this id is retired."""


class DuplicateEditError(SemeditError, ValueError):
    """An edit of this id, or with this prompt, exists already.

    Attributes:
        id: of the edit that was not taken.
    """

    def __init__(self, message: str, id: str) -> None:
        super().__init__(message)
        self.id = id


class NothingToUndoError(SemeditError, ValueError):
    """No change is left to undo."""


class StoreError(SemeditError, RuntimeError):
    """The memory cannot be opened, read or written."""


class StoreUnreachableError(StoreError):
    """The memory's server cannot be reached, or the connection to it was lost."""


class EncoderMismatchError(StoreError):
    """The memory's vectors come from another encoder."""


class InvalidQueryError(SemeditError, ValueError):
    """A query that cannot be routed."""


class UnsupportedArgumentError(SemeditError, TypeError):
    """`generate` was given what an edited row cannot honour."""


class ContextOverflowError(SemeditError, ValueError):
    """A prompt with its edits is longer than the model can read."""


class WrapError(SemeditError, TypeError):
    """This model cannot be wrapped."""


class LayerError(SemeditError, ValueError):
    """The model has no such layer, or none that an adaptor can stand at."""


class AdaptorConfigError(SemeditError, ValueError):
    """Settings of an adaptor that do not go together."""


class CalibrationError(SemeditError, ValueError):
    """Traffic, positives or a target that no threshold can be chosen by."""


class DatasetError(SemeditError, ValueError):
    """A data set's file, or a record of it, is not what it must be."""


class EvaluationError(SemeditError, ValueError):
    """What is to be evaluated, or how, does not go together."""


class LoadError(SemeditError, OSError):
    """A model or an encoder cannot be loaded."""


class SemeditWarning(UserWarning):
    """What every warning of this package is."""


class EditConflictWarning(SemeditWarning):
    """A new edit is in the scope of an active edit with another target."""


class CalibrationWarning(SemeditWarning):
    """The memory has outgrown the calibration of its threshold, or none is of the namespaces together."""


class CutAnswerWarning(SemeditWarning):
    """An answer does not fit: it is longer than was asked for, or than the model has room for."""


class AdaptorWarning(SemeditWarning):
    """An edit was not learned, was learned for another model, or paraphrases and other prompts lie equally near."""
