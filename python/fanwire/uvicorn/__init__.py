"""WebSocket protocols for uvicorn, whose connections a hub can take over the writing of.

``uvicorn app:app --ws fanwire.uvicorn:Sansio`` is uvicorn's own protocol, with one key more in the scope of a
WebSocket; docs/uvicorn.md says which. Needs uvicorn and websockets, which the extra ``uvicorn`` brings.
"""

try:
    from fanwire.uvicorn.sansio import Sansio
except ImportError as error:
    raise ImportError(f"fanwire.uvicorn needs {error.name}: pip install 'fanwire[uvicorn]'") from error

__all__ = ["Sansio"]
