"""What can go wrong in the engine, as types that say whose fault it is."""


class EngineError(Exception):
    """Base of everything the engine raises on purpose."""


class ConfigError(EngineError):
    """A setting that cannot be honoured on this machine or with this checkpoint."""


class CheckpointError(EngineError):
    """A checkpoint that is missing, truncated, mis-shaped or not Whisper's."""


class AudioError(EngineError):
    """Audio that cannot be read or is not what was announced."""


class StepError(EngineError):
    """A step that failed for its own utterances only: others go on."""


class DeviceError(EngineError):
    """The device has failed as a whole; no step after it can succeed."""


class EngineStoppedError(EngineError):
    """The engine thread has ended; nothing can be submitted any more."""
