"""The base of every model configuration: typed, frozen, and closed to unknown keys."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A configuration whose fields cannot be misspelt or changed after construction.

    Subclasses hold the paper's numbers as defaults, each with a comment that names its source.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
