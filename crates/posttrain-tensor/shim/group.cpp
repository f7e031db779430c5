// Processes that compute together: c10d's store and its gloo process group.
#include "shim.h"

#define USE_C10D_GLOO
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <chrono>
#include <string>

#include "guard.hpp"

namespace {

using Gloo = c10d::ProcessGroupGloo;

// The store is kept: where this process serves it, the others need it.
struct Group {
  c10::intrusive_ptr<c10d::Store> store;
  c10::intrusive_ptr<Gloo> gloo;
};

Gloo& gloo_of(void* group) { return *static_cast<Group*>(group)->gloo; }

const at::Tensor& tensor_of(const void* tensor) { return *static_cast<const at::Tensor*>(tensor); }

}  // namespace

const char* posttrain_store_open(const char* host, uint16_t port, bool serves, int64_t timeout_ms, void** store) {
  return posttrain::guarded([&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = serves;
    options.waitWorkers = false;
    options.timeout = std::chrono::milliseconds(timeout_ms);
    c10::intrusive_ptr<c10d::Store> opened = c10::make_intrusive<c10d::TCPStore>(host, options);
    *store = new c10::intrusive_ptr<c10d::Store>(std::move(opened));
  });
}

const char* posttrain_store_add(void* store, const char* key, int64_t amount, int64_t* sum) {
  return posttrain::guarded([&] { *sum = (*static_cast<c10::intrusive_ptr<c10d::Store>*>(store))->add(key, amount); });
}

void posttrain_store_close(void* store) { delete static_cast<c10::intrusive_ptr<c10d::Store>*>(store); }

const char* posttrain_group_open(void* store, const char* prefix, const char* interface, int rank, int size,
                                 int64_t timeout_ms, void** group) {
  return posttrain::guarded([&] {
    auto prefixed = c10::make_intrusive<c10d::PrefixStore>(prefix, *static_cast<c10::intrusive_ptr<c10d::Store>*>(store));
    auto options = Gloo::Options::create(std::chrono::milliseconds(timeout_ms));
    options->devices.push_back(*interface == '\0' ? Gloo::createDefaultDevice()
                                                  : Gloo::createDeviceForInterface(interface));
    auto gloo = c10::make_intrusive<Gloo>(prefixed, rank, size, options);
    *group = new Group{prefixed, std::move(gloo)};
  });
}

void posttrain_group_close(void* group) { delete static_cast<Group*>(group); }

const char* posttrain_group_all_reduce(void* group, const void* tensor) {
  return posttrain::guarded([&] {
    std::vector<at::Tensor> tensors{tensor_of(tensor)};
    gloo_of(group).allreduce(tensors)->wait();
  });
}

const char* posttrain_group_broadcast(void* group, const void* tensor, int root) {
  return posttrain::guarded([&] {
    std::vector<at::Tensor> tensors{tensor_of(tensor)};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    gloo_of(group).broadcast(tensors, options)->wait();
  });
}

const char* posttrain_group_all_gather(void* group, const void* own, const void* all) {
  return posttrain::guarded([&] {
    std::vector<at::Tensor> inputs{tensor_of(own)};
    std::vector<std::vector<at::Tensor>> outputs{tensor_of(all).unbind(0)};
    gloo_of(group).allgather(outputs, inputs)->wait();
  });
}
