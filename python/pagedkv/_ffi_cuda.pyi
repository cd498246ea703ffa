"""XLA FFI handlers of pagedkv for the CUDA platform."""



def registrations() -> dict[str, object]:
    """
    Every FFI target of this platform by name, as jax.ffi.register_ffi_target takes it.
    """

def api_version() -> tuple[int, int]:
    """(major, minor) of the XLA FFI API this module was built with."""
