// Switches of libtorch's backends.
#include "shim.h"

#include <ATen/Context.h>

#include "guard.hpp"

const char* posttrain_cudnn_attention(bool* enabled) {
  return posttrain::guarded([&] { *enabled = at::globalContext().userEnabledCuDNNSDP(); });
}

const char* posttrain_set_cudnn_attention(bool enabled) {
  return posttrain::guarded([&] { at::globalContext().setSDPUseCuDNN(enabled); });
}
