// The Python module: FFI handlers as capsules, construction of patterns, and properties of the machine.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "handlers/handlers.h"
#include "pattern/build.h"
#include "runtime/isa.h"
#include "runtime/probe.h"

namespace nb = nanobind;

namespace sparsejax {
namespace {

template <size_t N>
nb::dict Registrations(const Target (&targets)[N]) {
  nb::dict out;
  for (const Target& target : targets) out[target.name] = nb::capsule(reinterpret_cast<void*>(target.handler));
  return out;
}

using IntArray = nb::ndarray<nb::numpy, int32_t, nb::ndim<1>>;

// A NumPy array with the memory of the vector, which it keeps alive.
IntArray ToNumpy(std::vector<int32_t>&& values) {
  auto* owned = new std::vector<int32_t>(std::move(values));
  nb::capsule owner(owned, [](void* p) noexcept { delete static_cast<std::vector<int32_t>*>(p); });
  return IntArray(owned->data(), {owned->size()}, owner);
}

using Mask = nb::ndarray<const bool, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

nb::tuple Build(const Mask& mask, int64_t nse) {
  PatternArrays p;
  {
    nb::gil_scoped_release release;
    p = BuildPattern(mask.data(), mask.shape(0), mask.shape(1), nse);
  }
  return nb::make_tuple(ToNumpy(std::move(p.indptr)), ToNumpy(std::move(p.indices)), ToNumpy(std::move(p.indptr_t)),
                        ToNumpy(std::move(p.indices_t)), ToNumpy(std::move(p.perm_t)));
}

}  // namespace
}  // namespace sparsejax

NB_MODULE(_ffi, m) {
  sparsejax::SelectTable();
  m.def(
      "registrations", [] { return sparsejax::Registrations(sparsejax::kTargets); }, "FFI target names and handlers.");
  m.def(
      "old_registrations", [] { return sparsejax::Registrations(sparsejax::kOldTargets); },
      "The same of names that only programs exported by earlier versions use.");
  m.def("build_pattern", &sparsejax::Build, nb::arg("mask"), nb::arg("nse"),
        "Index arrays (indptr, indices, indptr_t, indices_t, perm_t) of a mask of shape (columns, rows) with at most "
        "nse true entries.");
  m.def("probe_fma", &sparsejax::FmaRate, nb::arg("seconds"), nb::call_guard<nb::gil_scoped_release>(),
        "Highest rate of fused multiply-adds of this thread, float32 flop/s (two per multiply-add).");
  m.def("probe_read", &sparsejax::ReadRate, nb::arg("bytes"), nb::arg("seconds"),
        nb::call_guard<nb::gil_scoped_release>(),
        "Highest rate of this thread of reading a buffer of this size again and again, bytes/s.");
  m.def("plan_bytes", &sparsejax::PlanBytes, "Bytes of the plans of convolutions that are kept for later calls.");
  m.def("isa", [] { return std::string(sparsejax::Table().isa); }, "Instruction set in use.");
  m.def("supported_isas", &sparsejax::SupportedIsas, "Instruction sets this processor can run, best first.");
}
