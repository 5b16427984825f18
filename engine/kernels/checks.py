"""What kernels take for granted of their arguments, checked before they are launched."""

from torch import Tensor


def check_contiguous(*tensors: Tensor | None) -> None:
    """Raise ValueError unless the last dimension of each is contiguous.

    A kernel that reads an index per row of a strided view would read other rows' instead.
    """
    for tensor in tensors:
        if tensor is not None and tensor.shape[-1] > 1 and tensor.stride(-1) != 1:
            raise ValueError(f"strides {tensor.stride()}: the last dimension must be contiguous")
