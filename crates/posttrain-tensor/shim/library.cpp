// The shared libraries that libtorch consists of.
#include "shim.h"

#include <dlfcn.h>

#include "guard.hpp"

const char* posttrain_c10_path(const char** path) {
  return posttrain::guarded([&] {
    Dl_info info;
    const bool found = dladdr(reinterpret_cast<void*>(&c10::GetExceptionString), &info) != 0;
    TORCH_CHECK(found && info.dli_fname != nullptr, "libc10 is no shared library of its own");
    *path = info.dli_fname;
  });
}

const char* posttrain_load_library(const char* path) {
  return posttrain::guarded([&] {
    void* const handle = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    TORCH_CHECK(handle != nullptr, dlerror());
  });
}
