// What of libtorch's C++ `tch` does not bind, behind a C interface: one file a subject.
//
// No exception crosses this border. Each function returns NULL, or in words what went wrong; the text lives until the same
// thread's next call.
#pragma once

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

// backend.cpp: switches of libtorch's backends.

// Whether attention may go through cuDNN.
const char* posttrain_cudnn_attention(bool* enabled);
const char* posttrain_set_cudnn_attention(bool enabled);

// memory.cpp: who else has a tensor's memory.

// Whether `tensor`, an at::Tensor, is the only handle on its memory.
const char* posttrain_is_unshared(const void* tensor, bool* unshared);

// library.cpp: the shared libraries that libtorch consists of; Linux alone.

// The path of libc10, which all others lie beside. The text lives as long as the library is loaded.
const char* posttrain_c10_path(const char** path);
// Loads a shared library with its symbols visible to all others, for as long as the process lives.
const char* posttrain_load_library(const char* path);

#ifdef __cplusplus
}
#endif
