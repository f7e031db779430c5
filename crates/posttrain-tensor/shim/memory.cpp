// Who else has a tensor's memory.
#include "shim.h"

#include <ATen/core/Tensor.h>

#include "guard.hpp"

const char* posttrain_is_unshared(const void* tensor, bool* unshared) {
  return posttrain::guarded([&] {
    const auto& handle = *static_cast<const at::Tensor*>(tensor);
    // Another handle counts at the tensor, a view of it at the storage.
    *unshared = handle.defined() && handle.has_storage() && handle.use_count() == 1 &&
                handle.storage().use_count() == 1;
  });
}
