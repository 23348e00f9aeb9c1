"""The ``buffer:`` section: how many results fit in memory, and what arrays they have."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from millpond.config.section import ByteCount, Count, Section, problem_at
from millpond.core.layout import (
    DTYPE_BYTES,
    NAME_PATTERN,
    PAGE_BYTES,
    SLOT_BYTES_MAX,
    SLOT_COUNT_MAX,
    Channel,
    plan,
)
from millpond.errors import ConfigError


class ChannelConfig(Section):
    """One named array in every result."""

    shape: tuple[Count, ...] = Field(description="Length of each dimension; [] for a scalar.")
    dtype: str = Field(description=f"One of {', '.join(DTYPE_BYTES)}.")

    @field_validator("dtype")
    @classmethod
    def _check_dtype(cls, dtype: str) -> str:
        if dtype not in DTYPE_BYTES:
            raise ValueError(f"it must be one of {', '.join(DTYPE_BYTES)}")
        return dtype


class BufferConfig(Section):
    """The shared memory that holds the results."""

    slots: Count = Field(
        256, ge=1, le=SLOT_COUNT_MAX, description="Results that fit in memory at once."
    )
    size: ByteCount | None = Field(
        None,
        ge=PAGE_BYTES,
        le=SLOT_BYTES_MAX,
        description="Bytes of memory, such as 512MiB, instead of slots.",
    )
    channels: dict[str, ChannelConfig] | None = Field(
        None, description="The arrays of a result; null: the first renderer declares them."
    )

    @property
    def declared(self) -> tuple[Channel, ...] | None:
        """The channels in the order of the file; None when a renderer declares them."""
        if self.channels is None:
            return None
        return tuple(Channel(name, c.shape, c.dtype) for name, c in self.channels.items())

    def slot_count(self, slot_bytes: int) -> int:
        """How many slots there will be when each has `slot_bytes`.

        Raises:
            ConfigError: Not one slot fits into `size`.
        """
        if self.size is None:
            return self.slots
        if self.size < slot_bytes:
            problem = f"one slot needs {slot_bytes} bytes, and {self.size} were given"
            raise ConfigError(problem, key="buffer.size")
        return min(self.size // slot_bytes, SLOT_COUNT_MAX)

    @field_validator("channels")
    @classmethod
    def _check_channels(
        cls, channels: dict[str, ChannelConfig] | None
    ) -> dict[str, ChannelConfig] | None:
        laid_out = []
        for name, channel in (channels or {}).items():
            try:
                laid_out.append(Channel(name, channel.shape, channel.dtype))
            except ValueError as error:
                named = NAME_PATTERN.fullmatch(name)
                raise problem_at(str(error), name, *(["shape"] if named else [])) from None
        if channels is not None:
            plan(laid_out, 1)
        return channels

    @model_validator(mode="after")
    def _check_sizes(self) -> BufferConfig:
        if self.size is not None and "slots" in self.model_fields_set:
            raise problem_at("slots and size say the same thing; give one of them", "size")
        if self.declared:
            slot_bytes = plan(self.declared, 1).slot_bytes
            try:
                plan(self.declared, self.slot_count(slot_bytes))
            except ConfigError as error:
                raise problem_at(error.problem, "size") from None
            except ValueError as error:
                raise problem_at(str(error), "slots") from None
        return self
