// SPDX-License-Identifier: BSD-3-Clause
// A tensor of torch, seen without linking torch: by the C functions that its class offers for
// DLPack, 20 ns each, or by its attributes, 500 ns. Only calls.h includes this.
#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <string>

#include "flashmetric.h"

namespace flashmetric::bindings {

namespace py = pybind11;

// Lengths and strides of the first two dimensions; no kernel reads more.
struct TensorView {
  void* data = nullptr;  // null: no tensor. An empty tensor has an address like any other
  int64_t ndim = 0;
  int64_t shape[2] = {1, 1};
  int64_t stride[2] = {0, 0};
  DType dtype = DType::float32;  // of floating tensors
};

// What DLPack 1 lays down, as far as it is read here.
namespace dlpack {

struct DLTensor {
  void* data;
  int32_t device_type, device_id;
  int32_t ndim;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;
  uint64_t byte_offset;
};
constexpr uint8_t kInt = 0, kFloat = 2, kBfloat = 4;  // codes

struct ExchangeApi {
  uint32_t major, minor;
  ExchangeApi* older;
  void *allocate, *owned_from_tensor, *tensor_from_owned;
  int (*look_at)(void* tensor, DLTensor* out);  // owns nothing, waits for nothing; 0 = done
};

// The functions that the class of an object offers; null if none, or those of another layout.
inline const ExchangeApi* api_of_class(PyTypeObject* type) {
  const char* const name = "dlpack_exchange_api";
  const py::handle cls(reinterpret_cast<PyObject*>(type));
  const py::object capsule = py::getattr(cls, "__dlpack_c_exchange_api__", py::none());
  if (!PyCapsule_IsValid(capsule.ptr(), name)) return nullptr;
  const auto* api = static_cast<ExchangeApi*>(PyCapsule_GetPointer(capsule.ptr(), name));
  return api->major == 1 && api->look_at != nullptr ? api : nullptr;
}

// The same, remembered for all classes that share the first base of the first class seen: those of
// torch do, torch._C.TensorBase, and the functions look at what that base lays down.
inline const ExchangeApi* api_of(py::handle tensor) {
  static std::atomic<PyTypeObject*> known{nullptr};
  static std::atomic<const ExchangeApi*> found{nullptr};
  PyTypeObject* base = known;
  if (base != nullptr && PyObject_TypeCheck(tensor.ptr(), base)) return found;
  const ExchangeApi* api = api_of_class(Py_TYPE(tensor.ptr()));
  const ExchangeApi* none = nullptr;
  if (api == nullptr || !found.compare_exchange_strong(none, api)) return api;
  base = Py_TYPE(tensor.ptr());
  while (base->tp_base != nullptr && base->tp_base != &PyBaseObject_Type) base = base->tp_base;
  known = base;
  return api;
}

inline DType dtype_of(uint8_t code, uint8_t bits) {
  if (code == kBfloat) return DType::bfloat16;
  if (bits == 64) return DType::float64;
  return bits == 16 ? DType::float16 : DType::float32;
}

}  // namespace dlpack

inline TensorView by_attributes(py::handle tensor) {
  TensorView view;
  view.data = reinterpret_cast<void*>(tensor.attr("data_ptr")().cast<uintptr_t>());
  const auto shape = tensor.attr("shape").cast<py::tuple>();
  const auto stride = tensor.attr("stride")().cast<py::tuple>();
  view.ndim = static_cast<int64_t>(shape.size());
  for (int64_t i = 0; i < std::min<int64_t>(view.ndim, 2); ++i) {
    view.shape[i] = shape[static_cast<size_t>(i)].cast<int64_t>();
    view.stride[i] = stride[static_cast<size_t>(i)].cast<int64_t>();
  }
  const std::string dtype = py::str(tensor.attr("dtype"));
  if (dtype == "torch.float64") view.dtype = DType::float64;
  if (dtype == "torch.float16") view.dtype = DType::float16;
  if (dtype == "torch.bfloat16") view.dtype = DType::bfloat16;
  return view;
}

inline TensorView by_dlpack(const dlpack::ExchangeApi& api, py::handle tensor) {
  dlpack::DLTensor seen{};
  if (api.look_at(tensor.ptr(), &seen) != 0) throw py::error_already_set();
  TensorView view;
  view.data = static_cast<char*>(seen.data) + seen.byte_offset;
  view.ndim = seen.ndim;
  std::copy_n(seen.shape, std::min(seen.ndim, 2), view.shape);
  std::copy_n(seen.strides, std::min(seen.ndim, 2), view.stride);
  view.dtype = dlpack::dtype_of(seen.code, seen.bits);
  return view;
}

// For tests: look at attributes even where DLPack would do.
inline std::atomic<bool> attributes_only{false};

inline const dlpack::ExchangeApi* functions_of(py::handle tensor) {
  return attributes_only ? nullptr : dlpack::api_of(tensor);
}

inline TensorView view_of(py::handle tensor) {
  if (tensor.is_none()) return {};
  const dlpack::ExchangeApi* const api = functions_of(tensor);
  TensorView view = api == nullptr ? by_attributes(tensor) : by_dlpack(*api, tensor);
  static double somewhere = 0;
  if (view.data == nullptr) view.data = &somewhere;
  return view;
}

// Whether these are rows and the class ids of just as many, of the usual dtypes, on one device: the
// kind of device as DLPack counts them, 1 = CPU; 0 where anything else has to be looked at closer.
inline int usual_device(py::handle embeddings, py::handle labels) {
  const dlpack::ExchangeApi* const api = functions_of(embeddings);
  if (api == nullptr || functions_of(labels) != api) return 0;
  dlpack::DLTensor rows{}, ids{};
  if (api->look_at(embeddings.ptr(), &rows) != 0 || api->look_at(labels.ptr(), &ids) != 0) {
    PyErr_Clear();  // of no memory, sparse, or in a wrapper
    return 0;
  }
  const bool floats = rows.code == dlpack::kFloat || rows.code == dlpack::kBfloat;
  const bool one_device = rows.device_type == ids.device_type && rows.device_id == ids.device_id;
  const bool usual = rows.ndim == 2 && floats && rows.bits >= 16 && ids.ndim == 1 &&
                     ids.code == dlpack::kInt && ids.bits == 64 && ids.shape[0] == rows.shape[0];
  return usual && one_device ? rows.device_type : 0;
}

}  // namespace flashmetric::bindings
