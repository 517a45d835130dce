// Handlers of the convolution products: check, plan, run the jobs of conv_jobs.h.
#include <algorithm>
#include <cstdint>
#include <memory>

#include "../runtime/parallel.h"
#include "checks.h"
#include "conv_geometry.h"
#include "conv_jobs.h"
#include "handlers.h"
#include "matmul_jobs.h"
#include "types.h"

namespace sparsejax {
namespace {

// What the tasks of a product share before any value is read. `source` is the number of source channels, `rows`
// that of destination features, `entries` that of stored entries; `wanted_tasks` says how finely strips are cut.
template <typename S>
std::shared_ptr<ConvWork> Plan(const ConvAxis& y, const ConvAxis& x, const ConvPattern& p, int64_t source, int64_t rows,
                               int64_t entries, int64_t batch, int64_t wanted_tasks) {
  const auto& k = Element<S>::Kernels();
  // Groups divide the channels among the rows already: no passes.
  const int64_t row_entries = p.groups > 1 ? 0 : entries / (rows * y.phases() * x.phases());
  auto work = std::make_shared<ConvWork>(
      ConvWork{ConvTiling(y, x, source, batch, k.lanes, k.max_vecs, sizeof(Sum<S>), sizeof(S), row_entries), {}, 1, 1});
  if (!work->tiling.fits()) return nullptr;
  const ConvTiling& t = work->tiling;
  work->programs = Programs(t, p, rows);
  work->segments = std::clamp<int64_t>(CeilDiv(wanted_tasks, std::max<int64_t>(1, t.strips())), 1, t.row_blocks);
  return work;
}

// Tasks per unit: more than one only where there are few units, and only as many as repay packing the tiles again: an
// eighth of the work at most.
int64_t RowParts(const ConvWork& work, int64_t units, int64_t entries, int64_t pixels, int64_t threads) {
  constexpr int64_t kPackedVector = 3;  // multiply-adds that packing a vector costs as much as
  const ConvTiling& t = work.tiling;
  const int64_t products = SaturatingMul(entries, pixels * t.batch_blocks);
  const int64_t packing = SaturatingMul(kPackedVector * t.packed_elements() / t.lanes, t.strips() * t.row_blocks);
  const int64_t repaid = products / std::max<int64_t>(1, 8 * packing);
  const int64_t wanted = CeilDiv(WantedTasks(threads), std::max<int64_t>(1, units));
  return std::clamp<int64_t>(std::min(wanted, repaid), 1, work.programs.rows);
}

// The values in the order of the programs.
template <typename S>
Values<S> InOrder(const Values<S>& values, const ConvWork& work) {
  const ConvPrograms& programs = work.programs;
  return programs.id == nullptr ? values : values.At(programs.id.get(), programs.entries);
}

ffi::Future TooLarge(const char* name) {
  return Failed(ffi::Error::InvalidArgument(
      std::string(name) + ": geometry has a smallest tile of more than 2**27 elements; expected fewer channels or taps."));
}

// Multiply-adds, roughly: every entry meets every output pixel once.
int64_t Work(int64_t nnz, int64_t pixels, int64_t batch) { return (nnz + 1) * pixels * batch; }

ffi::Future ConvImpl(ffi::ThreadPool pool, ffi::AnyBuffer data, ffi::AnyBuffer x, Ints indptr, Ints indices,
                     ffi::Result<ffi::AnyBuffer> y, ffi::Span<const int64_t> geometry) {
  constexpr const char* kName = "sparsejax_conv";
  Checker check(kName);
  const ConvGeometry g = ConvGeometry::Decode(geometry, /*transposed=*/false, check);
  check.FloatType("x", x.element_type());
  check.SameType("data", data, x.element_type());
  check.SameType("result", *y, x.element_type());
  if (check.ok()) g.CheckActivations("x", x, g.y.in, g.x.in, g.in_features, check);
  if (check.ok()) g.CheckActivations("result", *y, g.y.out, g.x.out, g.out_features, check);
  check.Size("indptr", Elements(indptr), g.out_features + 1);
  check.Size("data", Elements(data), Elements(indices));
  check.Pointers("indptr", indptr.typed_data(), Elements(indptr), Elements(indices));
  if (check.ok()) {
    check.Size("result's batch", y->dimensions()[0], x.dimensions()[0]);
    check.Indices("indices", indices.typed_data(), indptr.typed_data()[g.out_features], g.columns());
  }
  if (!check.ok()) return Failed(check.error());
  return DispatchGuarded(x.element_type(), [&](auto element) {
    using S = decltype(element);
    const int64_t batch = x.dimensions()[0];
    if (batch * g.out_pixels() == 0) return Done();
    Values<S> values(Read<S>(data), Elements(data));
    if (g.pointwise()) {
      const Rows rows{indptr.typed_data(), indices.typed_data(), nullptr, g.out_features, g.in_features};
      return RunSpmm(pool, rows, batch * g.out_pixels(), std::move(values), Read<S>(x), Write<S>(*y));
    }
    const int64_t nnz = indptr.typed_data()[g.out_features];
    const ConvPattern p{indptr.typed_data(), indices.typed_data(), nullptr, g.in_features, g.out_features, g.groups};
    auto work = Plan<S>(ConvAxis::Forward(g.y), ConvAxis::Forward(g.x), p, g.in_features, g.out_features, nnz, batch,
                        WantedTasks(pool.num_threads()));
    if (work == nullptr) return TooLarge(kName);
    work->row_parts = RowParts(*work, work->units(), nnz, g.out_pixels(), pool.num_threads());
    const int64_t chunks = work->units() * work->row_parts;
    ConvJob<S> job{work, InOrder(values, *work), Read<S>(x), Write<S>(*y)};
    return RunJob(pool, std::move(job), chunks, Work(nnz, g.out_pixels(), batch));
  });
}

ffi::Future ConvInputGradImpl(ffi::ThreadPool pool, ffi::AnyBuffer data, ffi::AnyBuffer y, Ints indptr_t,
                              Ints indices_t, Ints perm_t, ffi::Result<ffi::AnyBuffer> x,
                              ffi::Span<const int64_t> geometry) {
  constexpr const char* kName = "sparsejax_conv_input_grad";
  Checker check(kName);
  const ConvGeometry g = ConvGeometry::Decode(geometry, /*transposed=*/true, check);
  check.FloatType("y", y.element_type());
  check.SameType("data", data, y.element_type());
  check.SameType("result", *x, y.element_type());
  if (check.ok()) g.CheckActivations("y", y, g.y.out, g.x.out, g.out_features, check);
  if (check.ok()) g.CheckActivations("result", *x, g.y.in, g.x.in, g.in_features, check);
  if (check.ok()) check.Size("indptr_t", Elements(indptr_t), g.columns() + 1);
  check.Size("data", Elements(data), Elements(indices_t));
  check.Size("perm_t", Elements(perm_t), Elements(indices_t));
  check.Pointers("indptr_t", indptr_t.typed_data(), Elements(indptr_t), Elements(indices_t));
  if (check.ok()) {
    const int64_t nnz = indptr_t.typed_data()[g.columns()];
    check.Size("result's batch", x->dimensions()[0], y.dimensions()[0]);
    check.Indices("indices_t", indices_t.typed_data(), nnz, g.out_features);
    check.Indices("perm_t", perm_t.typed_data(), nnz, Elements(data));
  }
  if (!check.ok()) return Failed(check.error());
  return DispatchGuarded(y.element_type(), [&](auto element) {
    using S = decltype(element);
    const int64_t batch = y.dimensions()[0];
    if (batch * g.in_pixels() == 0) return Done();
    Values<S> values(Read<S>(data), Elements(data));
    if (g.pointwise()) {
      const Rows rows{indptr_t.typed_data(), indices_t.typed_data(), perm_t.typed_data(), g.in_features,
                      g.out_features};
      return RunSpmm(pool, rows, batch * g.in_pixels(), std::move(values), Read<S>(y), Write<S>(*x));
    }
    const int64_t nnz = indptr_t.typed_data()[g.columns()];
    const ConvPattern p{indptr_t.typed_data(), indices_t.typed_data(), perm_t.typed_data(), g.in_features,
                        g.out_features, g.groups};
    auto work = Plan<S>(ConvAxis::Transposed(g.y), ConvAxis::Transposed(g.x), p, g.out_features, g.in_features, nnz,
                        batch, WantedTasks(pool.num_threads()));
    if (work == nullptr) return TooLarge(kName);
    work->row_parts = RowParts(*work, work->units(), nnz, g.out_pixels(), pool.num_threads());
    const int64_t chunks = work->units() * work->row_parts;
    ConvJob<S> job{work, InOrder(values, *work), Read<S>(y), Write<S>(*x)};
    return RunJob(pool, std::move(job), chunks, Work(nnz, g.out_pixels(), batch) + g.in_pixels() * batch);
  });
}

ffi::Future ConvWeightGradImpl(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::AnyBuffer y, Ints indptr, Ints indices,
                               ffi::Result<ffi::AnyBuffer> out, ffi::Span<const int64_t> geometry) {
  constexpr const char* kName = "sparsejax_conv_weight_grad";
  Checker check(kName);
  const ConvGeometry g = ConvGeometry::Decode(geometry, /*transposed=*/false, check);
  check.FloatType("x", x.element_type());
  check.SameType("y", y, x.element_type());
  check.SameType("result", *out, x.element_type());
  if (check.ok()) g.CheckActivations("x", x, g.y.in, g.x.in, g.in_features, check);
  if (check.ok()) g.CheckActivations("y", y, g.y.out, g.x.out, g.out_features, check);
  check.Size("indptr", Elements(indptr), g.out_features + 1);
  check.Size("result", Elements(*out), Elements(indices));
  check.Pointers("indptr", indptr.typed_data(), Elements(indptr), Elements(indices));
  if (check.ok()) {
    check.Size("y's batch", y.dimensions()[0], x.dimensions()[0]);
    check.Indices("indices", indices.typed_data(), indptr.typed_data()[g.out_features], g.columns());
  }
  if (!check.ok()) return Failed(check.error());
  return DispatchGuarded(x.element_type(), [&](auto element) {
    using S = decltype(element);
    const int64_t batch = x.dimensions()[0];
    const int64_t nse = Elements(indices), nnz = indptr.typed_data()[g.out_features];
    S* dw = Write<S>(*out);
    if (batch * g.out_pixels() == 0) {
      std::fill(dw, dw + nse, S{});
      return Done();
    }
    if (g.pointwise()) {
      const Rows rows{indptr.typed_data(), indices.typed_data(), nullptr, g.out_features, g.in_features};
      return RunSddmm(pool, rows, batch * g.out_pixels(), Read<S>(x), Read<S>(y), dw, nse);
    }
    const ConvPattern p{indptr.typed_data(), indices.typed_data(), nullptr, g.in_features, g.out_features, g.groups};
    auto work = Plan<S>(ConvAxis::Forward(g.y), ConvAxis::Forward(g.x), p, g.in_features, g.out_features, nnz, batch,
                        kWantedTasks);
    if (work == nullptr) return TooLarge(kName);
    const int64_t vectors = g.out_pixels() * batch / Element<S>::Kernels().lanes;
    const int64_t slots = GradientSlots(work->units(), vectors, nse, sizeof(Sum<S>));
    work->row_parts = RowParts(*work, slots, nnz, g.out_pixels(), pool.num_threads());
    const int64_t chunks = slots * work->row_parts;
    const ConvPrograms& programs = work->programs;
    Slots<S> sums(dw, nse, nnz, slots, programs.id.get(), programs.entries);
    ConvWeightGradJob<S> job{work, Read<S>(x), Read<S>(y), slots, std::move(sums)};
    return RunJob(pool, std::move(job), chunks, Work(nnz, g.out_pixels(), batch));
  });
}

using Geometry = ffi::Span<const int64_t>;

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(ConvHandler, ConvImpl, BindProduct().Attr<Geometry>("geometry"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(ConvInputGradHandler, ConvInputGradImpl,
                              BindTransposedProduct().Attr<Geometry>("geometry"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(ConvWeightGradHandler, ConvWeightGradImpl, BindProduct().Attr<Geometry>("geometry"));

}  // namespace sparsejax
