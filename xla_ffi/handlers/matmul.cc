// Handlers of the matrix products: spmm, spmm_t (the same job on the transposed pattern), sddmm, and both gradients.
//
// Activations have shape (batch, features); the attribute `layouts` says how they lie in memory.
#include <cstdint>

#include "../runtime/parallel.h"
#include "checks.h"
#include "handlers.h"
#include "matmul_backward.h"
#include "matmul_jobs.h"
#include "matmul_small.h"
#include "types.h"

namespace sparsejax {
namespace {

// Checks what both orientations of spmm have in common, and runs the product. `indices` is the operand's name.
ffi::Error CheckAndRunSpmm(Checker& check, const char* indices, ffi::ThreadPool& pool, const ffi::AnyBuffer& data,
                           const ffi::AnyBuffer& x, Layout of_x, const Rows& p, ffi::AnyBuffer& y, Layout of_y) {
  const int64_t n = x.dimensions()[0];
  check.Shape("result", y, n, p.rows);
  check.SameType("data", data, x.element_type());
  check.SameType("result", y, x.element_type());
  check.FloatType("x", x.element_type());
  if (!check.ok()) return check.error();
  return DispatchGuarded(x.element_type(), [&](auto element) {
    using S = decltype(element);
    const bool shared = n <= SmallBatch::kMost && SharedRows(p.row_ptr, p.indices, p.rows) > 1;
    const SmallBatch small = SmallBatch::Make(Element<S>::Products(), n, p.features, shared);
    const bool is_small = p.id == nullptr && small.kernel >= 0;
    if (!is_small) check.Indices(indices, p.indices, p.entries(), p.features);
    if (!check.ok()) return check.error();
    const Activations<const S> of_source(OperandData<S>(x), n, p.features, of_x);
    const Activations<S> of_result(PrepareResult<S>(y), n, p.rows, of_y);
    if (!is_small)
      return RunPlanned(pool, PlanSpmm(pool, p, Values<S>(OperandData<S>(data), Elements(data)), of_source, of_result));
    bool in_range;
    ffi::Error error = RunSmallBatch(pool, small, p, OperandData<S>(data), of_source, of_result, in_range);
    if (!in_range) check.Indices(indices, p.indices, p.entries(), p.features);
    return check.ok() ? error : check.error();
  });
}

ffi::Error SpmmImpl(ffi::ThreadPool pool, ffi::AnyBuffer data, ffi::AnyBuffer x, Ints indptr, Ints indices,
                    ffi::Result<ffi::AnyBuffer> y, ffi::Dictionary attributes) {
  Checker check("sparsejax_spmm");
  const Layouts layouts = Layouts::Decode(attributes, check);
  check.Rank("x", x, 2);
  check.Size("data", Elements(data), Elements(indices));
  check.Pointers("indptr", indptr.typed_data(), Elements(indptr), Elements(indices));
  if (!check.ok()) return check.error();
  const Rows pattern{.row_ptr = indptr.typed_data(),
                     .indices = indices.typed_data(),
                     .id = nullptr,
                     .rows = Elements(indptr) - 1,
                     .features = x.dimensions()[1]};
  return CheckAndRunSpmm(check, "indices", pool, data, x, layouts.x, pattern, *y, layouts.y);
}

ffi::Error SpmmTImpl(ffi::ThreadPool pool, ffi::AnyBuffer data, ffi::AnyBuffer y, Ints indptr_t, Ints indices_t,
                     Ints perm_t, ffi::Result<ffi::AnyBuffer> x, ffi::Dictionary attributes) {
  Checker check("sparsejax_spmm_t");
  const Layouts layouts = Layouts::Decode(attributes, check);
  check.Rank("y", y, 2);
  check.Size("data", Elements(data), Elements(indices_t));
  check.Size("perm_t", Elements(perm_t), Elements(indices_t));
  check.Pointers("indptr_t", indptr_t.typed_data(), Elements(indptr_t), Elements(indices_t));
  if (!check.ok()) return check.error();
  const Rows pattern{.row_ptr = indptr_t.typed_data(),
                     .indices = indices_t.typed_data(),
                     .id = perm_t.typed_data(),
                     .rows = Elements(indptr_t) - 1,
                     .features = y.dimensions()[1]};
  check.Indices("perm_t", pattern.id, pattern.entries(), Elements(data));
  return CheckAndRunSpmm(check, "indices_t", pool, data, y, layouts.y, pattern, *x, layouts.x);
}

ffi::Error SddmmImpl(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::AnyBuffer y, Ints indptr, Ints indices,
                     ffi::Result<ffi::AnyBuffer> out, ffi::Dictionary attributes) {
  Checker check("sparsejax_sddmm");
  const Layouts layouts = Layouts::Decode(attributes, check);
  check.Rank("x", x, 2);
  check.Rank("y", y, 2);
  check.FloatType("x", x.element_type());
  check.SameType("y", y, x.element_type());
  check.SameType("result", *out, x.element_type());
  check.Size("result", Elements(*out), Elements(indices));
  check.Pointers("indptr", indptr.typed_data(), Elements(indptr), Elements(indices));
  if (check.ok()) {
    check.Size("y's batch", y.dimensions()[0], x.dimensions()[0]);
    check.Size("y's features", y.dimensions()[1], Elements(indptr) - 1);
    check.Indices("indices", indices.typed_data(), indptr.typed_data()[Elements(indptr) - 1], x.dimensions()[1]);
  }
  if (!check.ok()) return check.error();
  const Rows pattern{.row_ptr = indptr.typed_data(),
                     .indices = indices.typed_data(),
                     .id = nullptr,
                     .rows = Elements(indptr) - 1,
                     .features = x.dimensions()[1]};
  return DispatchGuarded(x.element_type(), [&](auto element) {
    using S = decltype(element);
    const int64_t n = x.dimensions()[0];
    const Activations<const S> of_x(OperandData<S>(x), n, pattern.features, layouts.x);
    const Activations<const S> of_y(OperandData<S>(y), n, pattern.rows, layouts.y);
    return RunPlanned(pool, PlanSddmm(pool, pattern, of_x, of_y, PrepareResult<S>(*out), Elements(indices)));
  });
}

ffi::Error SpmmBackwardImpl(ffi::ThreadPool pool, ffi::AnyBuffer ct, ffi::AnyBuffer data, ffi::AnyBuffer x,
                            Ints indptr, Ints indices, Ints indptr_t, Ints indices_t, Ints perm_t,
                            ffi::Result<ffi::AnyBuffer> ddata, ffi::Result<ffi::AnyBuffer> dx,
                            ffi::Dictionary attributes) {
  Checker check("sparsejax_spmm_backward");
  const Layouts layouts = Layouts::Decode(attributes, check);
  check.Rank("ct", ct, 2);
  check.Rank("x", x, 2);
  check.FloatType("ct", ct.element_type());
  check.SameType("data", data, ct.element_type());
  check.SameType("x", x, ct.element_type());
  check.SameType("data's gradient", *ddata, ct.element_type());
  check.SameType("x's gradient", *dx, ct.element_type());
  const int64_t nse = Elements(indices);
  check.Size("data", Elements(data), nse);
  check.Size("data's gradient", Elements(*ddata), nse);
  check.Size("indices_t", Elements(indices_t), nse);
  check.Size("perm_t", Elements(perm_t), nse);
  check.Pointers("indptr", indptr.typed_data(), Elements(indptr), nse);
  check.Pointers("indptr_t", indptr_t.typed_data(), Elements(indptr_t), nse);
  if (!check.ok()) return check.error();
  check.SameShape("x's gradient", *dx, x);
  check.Size("x's batch", x.dimensions()[0], ct.dimensions()[0]);
  check.Size("x's features", x.dimensions()[1], Elements(indptr_t) - 1);
  check.Size("ct's features", ct.dimensions()[1], Elements(indptr) - 1);
  const Rows p{.row_ptr = indptr.typed_data(),
               .indices = indices.typed_data(),
               .id = nullptr,
               .rows = Elements(indptr) - 1,
               .features = Elements(indptr_t) - 1};
  const Rows transposed{.row_ptr = indptr_t.typed_data(),
                        .indices = indices_t.typed_data(),
                        .id = perm_t.typed_data(),
                        .rows = p.features,
                        .features = p.rows};
  check.Indices("indices_t", transposed.indices, transposed.entries(), p.rows);
  if (!check.ok()) return check.error();
  return DispatchGuarded(ct.element_type(), [&](auto element) {
    using S = decltype(element);
    const bool is_fused = IsFused(transposed, ct.dimensions()[0]);
    if (!is_fused) {  // the fused pass does not read `indices`, and its `perm_t` is a permutation
      check.Indices("indices", p.indices, p.entries(), p.features);
      check.Indices("perm_t", transposed.id, transposed.entries(), nse);
    }
    if (!check.ok()) return check.error();
    const int64_t n = ct.dimensions()[0];
    return RunMatmulBackward(pool, is_fused, p, transposed, Values<S>(OperandData<S>(data), nse),
                             Activations<const S>(OperandData<S>(ct), n, p.rows, layouts.y),
                             Activations<const S>(OperandData<S>(x), n, p.features, layouts.x),
                             Activations<S>(PrepareResult<S>(*dx), n, p.features, layouts.x),
                             PrepareResult<S>(*ddata), nse);
  });
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(SpmmHandler, SpmmImpl, BindProduct().Attrs());
XLA_FFI_DEFINE_HANDLER_SYMBOL(SpmmTHandler, SpmmTImpl, BindTransposedProduct().Attrs());
XLA_FFI_DEFINE_HANDLER_SYMBOL(SddmmHandler, SddmmImpl, BindProduct().Attrs());
XLA_FFI_DEFINE_HANDLER_SYMBOL(SpmmBackwardHandler, SpmmBackwardImpl, BindBackward().Attrs());

}  // namespace sparsejax
