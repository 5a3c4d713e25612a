// SPDX-License-Identifier: BSD-3-Clause
// A call of a kernel from Python: its arguments one by one, the GIL, and what becomes of its
// status. Only arguments.h includes this.
#pragma once

#include <stdexcept>
#include <string>
#include <type_traits>

#include "tensors.h"

namespace flashmetric::bindings {

// Hands out the arguments of a call in order, which is that of the schema of its op where it can
// be; each is converted to what it is assigned to: a tensor to its address, None to a null pointer.
class Arguments {
 public:
  explicit Arguments(const py::tuple& args) : args_(args) {}

  template <class T>
  operator T() {  // NOLINT: the conversion is the point
    if (done()) throw py::type_error("too few arguments");
    const py::handle next = PyTuple_GET_ITEM(args_.ptr(), at_++);
    if constexpr (std::is_same_v<T, TensorView>) {
      return view_of(next);
    } else if constexpr (std::is_pointer_v<T>) {
      return static_cast<T>(view_of(next).data);
    } else if constexpr (std::is_enum_v<T>) {
      return static_cast<T>(next.cast<int>());
    } else {
      return next.cast<T>();
    }
  }
  bool done() const { return at_ == PyTuple_GET_SIZE(args_.ptr()); }

 private:
  const py::tuple& args_;
  Py_ssize_t at_ = 0;
};

// What the machine refuses is no fault of a value.
inline void raise(const Status& status) {
  if (status.find("] CUDA error in ") != std::string::npos) throw std::runtime_error(status);
  if (!status.empty()) throw py::value_error(status);
}

// Runs the operation. Returns 0, or only the bytes it needs, if the workspace is none or too small.
template <class Operation, class Problem>
size_t run(const Operation& operation, Problem& problem, const Arguments& in,
           py::handle workspace_of_bytes) {
  const TensorView memory = view_of(workspace_of_bytes);
  const Workspace workspace{memory.data, static_cast<size_t>(memory.shape[0])};
  if (!in.done()) throw py::type_error("too many arguments");
  Status status;
  size_t needed = 0;
  {
    py::gil_scoped_release released;
    status = operation(problem);  // without a workspace: measures
    needed = problem.workspace.bytes;
    if (status.empty() && workspace.data != nullptr && needed <= workspace.bytes) {
      problem.workspace = workspace;
      status = operation(problem);
      needed = 0;
    }
  }
  raise(status);
  return needed;
}

}  // namespace flashmetric::bindings
