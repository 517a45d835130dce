// A call of a convolution's handler: what the products have in common.
#ifndef SPARSEJAX_HANDLERS_CONV_CALL_H_
#define SPARSEJAX_HANDLERS_CONV_CALL_H_

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "../plan/conv_program.h"
#include "../runtime/plan_cache.h"
#include "activations.h"
#include "checks.h"
#include "conv_geometry.h"
#include "layouts.h"
#include "matmul_jobs.h"
#include "types.h"

namespace sparsejax {

// The call of a handler, after its shapes are checked.
struct ConvCall {
  const ConvGeometry& g;
  ffi::Span<const int64_t> geometry;  // the attribute that g is decoded from
  Ints indptr, indices;
  std::optional<Ints> perm;  // of the input gradient, which is computed on the transposed pattern
  int64_t batch;
  Layouts layouts{};
  bool both = false;  // both gradients at once

  int64_t source() const { return perm ? g.out_features : g.in_features; }  // features
  int64_t rows() const { return perm ? g.in_features : g.out_features; }    // features of the destination
  int64_t pixels() const { return perm ? g.in_pixels() : g.out_pixels(); }  // of the destination
  int64_t nnz() const { return indptr.typed_data()[Elements(indptr) - 1]; }
  Layout source_layout() const { return perm ? layouts.y : layouts.x; }
  Layout destination_layout() const { return perm ? layouts.x : layouts.y; }
  // The arrays of the source's and the destination's shape, where the call is a matrix product.
  template <typename S>
  Activations<const S> AsSource(const S* data) const {
    return {data, batch * pixels(), source(), source_layout()};
  }
  template <typename S>
  Activations<S> AsDestination(S* data) const {
    return {data, batch * pixels(), rows(), destination_layout()};
  }
  // Whether the call needs a ConvPlan: it is neither empty nor a matrix product.
  bool planned() const { return !g.pointwise() && batch * pixels() != 0; }

  Rows AsRows() const {
    return {.row_ptr = indptr.typed_data(),
            .indices = indices.typed_data(),
            .id = perm ? perm->typed_data() : nullptr,
            .rows = rows(),
            .features = source()};
  }

  ConvPattern Pattern() const {
    return {.indptr = indptr.typed_data(),
            .indices = indices.typed_data(),
            .perm = perm ? perm->typed_data() : nullptr,
            .in_features = g.in_features,
            .out_features = g.out_features,
            .groups = g.groups};
  }

  // Checks the numbers that could make a kernel read out of bounds. `checks_perm` is false for a known permutation.
  void CheckContents(Checker& check, bool checks_perm = true) const {
    const int64_t nse = Elements(indices);
    check.Pointers(perm ? "indptr_t" : "indptr", indptr.typed_data(), Elements(indptr), nse);
    if (!check.ok()) return;
    check.Indices(perm ? "indices_t" : "indices", indices.typed_data(), nnz(), perm ? g.out_features : g.columns());
    if (perm && checks_perm) check.Indices("perm_t", perm->typed_data(), nnz(), nse);
  }

  template <typename S>
  PlanKey Key() const {
    const auto& k = Element<S>::Products();
    std::vector<int64_t> numbers(geometry.begin(), geometry.end());
    numbers.insert(numbers.end(), {perm.has_value(), both, batch, static_cast<int64_t>(layouts.x),
                                   static_cast<int64_t>(layouts.y), k.lanes, k.max_vecs, sizeof(S)});
    PlanKey key(std::move(numbers));
    key.Add(indptr.typed_data(), Elements(indptr));
    key.Add(indices.typed_data(), Elements(indices));
    if (perm) key.Add(perm->typed_data(), Elements(*perm));
    return key;
  }
};

}  // namespace sparsejax

#endif  // SPARSEJAX_HANDLERS_CONV_CALL_H_
