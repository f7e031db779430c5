// What of libtorch's C++ `tch` does not bind, behind a C interface: one file a subject.
//
// No exception crosses this border. Each function returns NULL, or in words what went wrong; the text lives until the same
// thread's next call.
#pragma once

#include <stdbool.h>
#include <stdint.h>

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

// group.cpp: processes that compute together, by c10d; Linux alone.

// c10d's TCPStore, which the ranks find each other by. One process serves it; the others connect.
const char* posttrain_store_open(const char* host, uint16_t port, bool serves, int64_t timeout_ms, void** store);
// Adds to the number at `key`, which begins at zero, and says what it is then.
const char* posttrain_store_add(void* store, const char* key, int64_t amount, int64_t* sum);
void posttrain_store_close(void* store);
// A gloo process group of `size` ranks, which each opens with its own `rank` and the same `prefix` of the store's keys, by the
// network interface of that name, or by the host name's where it is empty. No operation waits longer than the timeout.
const char* posttrain_group_open(void* store, const char* prefix, const char* interface, int rank, int size,
                                 int64_t timeout_ms, void** group);
void posttrain_group_close(void* group);
// Sums `tensor`, an at::Tensor that is contiguous on the CPU, over all ranks, in place.
const char* posttrain_group_all_reduce(void* group, const void* tensor);
// Writes the rank `root`'s tensor into every other's.
const char* posttrain_group_broadcast(void* group, const void* tensor, int root);
// Writes every rank's `own`, [n], into `all`, [size, n].
const char* posttrain_group_all_gather(void* group, const void* own, const void* all);

#ifdef __cplusplus
}
#endif
