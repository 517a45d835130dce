// Handlers of the convolution products: check, plan, run the jobs of conv_jobs.h.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "../runtime/parallel.h"
#include "../runtime/plan_cache.h"
#include "checks.h"
#include "conv_call.h"
#include "conv_geometry.h"
#include "conv_jobs.h"
#include "handlers.h"
#include "layouts.h"
#include "matmul_backward.h"
#include "matmul_jobs.h"
#include "types.h"

namespace sparsejax {
namespace {

// Never destroyed, because threads of XLA's pool may outlive static objects.
PlanCache<ConvPlan>& Plans() {
  static auto* const plans = new PlanCache<ConvPlan>;
  return *plans;
}

// The plan of an earlier call, in which the contents were checked, or a new one. Null if a check fails.
template <typename S>
std::shared_ptr<const ConvPlan> PlanFor(const ConvCall& call, Checker& check) {
  const PlanKey key = call.Key<S>();
  if (auto plan = Plans().Find(key)) return plan;
  call.CheckContents(check);
  if (!check.ok()) return nullptr;
  const ConvGeometry& g = call.g;
  const ConvAxis y = call.perm ? ConvAxis::Transposed(g.y) : ConvAxis::Forward(g.y);
  const ConvAxis x = call.perm ? ConvAxis::Transposed(g.x) : ConvAxis::Forward(g.x);
  const auto& k = Element<S>::Products();
  // There is one pass with several groups, where a row reads some channels only, and with both gradients, where the two
  // multiply-adds per vector hide reading it from the second-level cache.
  const int64_t row_entries = g.groups > 1 || call.both ? 0 : call.nnz() / (call.rows() * y.phases() * x.phases());
  ConvTiling tiling(y, x,
                    {.channels = call.source(),
                     .batch = call.batch,
                     .vector = k.lanes,
                     .max_vecs = k.max_vecs,
                     .element_bytes = sizeof(S),
                     .row_entries = row_entries,
                     .source_row_major = call.source_layout() == Layout::kRowMajor,
                     .destination_row_major = call.destination_layout() == Layout::kRowMajor});
  if (!tiling.fits()) {
    check.Fail("geometry", "a smallest tile of more than 2**27 elements", "fewer channels or taps");
    return nullptr;
  }
  auto plan = std::make_shared<const ConvPlan>(std::move(tiling), call.Pattern(), call.rows(), call.nnz(), call.both);
  Plans().Keep(key, plan);
  return plan;
}

// Divides strips into segments, of one tile at least, so that there are as many tasks as wanted.
ConvWork Work(std::shared_ptr<const ConvPlan> plan, int64_t wanted_tasks) {
  const ConvTiling& t = plan->tiling;
  const int64_t segments = CeilDiv(wanted_tasks, std::max<int64_t>(1, t.strips()));
  return {.plan = std::move(plan), .segments = std::clamp<int64_t>(segments, 1, t.row_blocks)};
}

// Number of parts of the rows that are worth packing the tiles for each: packing may take an eighth of the work at
// most.
int64_t RepaidParts(const ConvWork& work, int64_t entries, int64_t pixels) {
  constexpr int64_t kPackedVector = 3;  // cost of packing a vector, in multiply-adds of vectors
  const ConvTiling& t = work.tiling();
  const int64_t products = SaturatingMul(entries, pixels * t.batch_blocks);
  const int64_t packing = SaturatingMul(kPackedVector * t.packed_elements() / t.lanes, t.strips() * t.row_blocks);
  return products / std::max<int64_t>(1, SaturatingMul(8, packing));
}

// The values in the order of the entries of the programs.
template <typename S>
Values<S> InOrder(const Values<S>& values, const ConvWork& work) {
  const ConvPrograms& programs = work.programs();
  return values.At(programs.id.get(), programs.entries);
}

// About the number of multiply-adds: every entry is multiplied with one pixel per output pixel.
int64_t Products(int64_t nnz, int64_t pixels, int64_t batch) { return (nnz + 1) * pixels * batch; }

// The forward product, and the input gradient on the transposed pattern.
template <typename S>
ffi::Error RunProduct(ffi::ThreadPool& pool, const ConvCall& call, Values<S> values, const S* from,
                      ffi::AnyBuffer& to, Checker& check) {
  if (!call.planned()) call.CheckContents(check);
  if (!check.ok()) return check.error();
  if (call.batch * call.pixels() == 0) return ffi::Error::Success();
  if (!call.planned())
    return RunPlanned(pool, PlanSpmm(pool, call.AsRows(), std::move(values), call.AsSource(from),
                                     call.AsDestination(PrepareResult<S>(to))));
  auto plan = PlanFor<S>(call, check);
  if (plan == nullptr) return check.error();
  const ConvGeometry& g = call.g;
  const int64_t nnz = call.nnz();
  ConvWork work = Work(std::move(plan), WantedTasks(pool.num_threads()));
  const int64_t repaid = RepaidParts(work, nnz, g.out_pixels());
  work.row_parts = RowParts(work.units(), repaid, work.programs().rows, pool.num_threads());
  const int64_t clearing = call.perm ? g.in_pixels() * call.batch : 0;  // pixels that meet no tap are written too
  values = InOrder(values, work);
  const Chunks chunks{.before = values.chunks(), .run = work.units() * work.row_parts, .after = 0};
  ConvJob<S> job{.work = std::move(work), .data = std::move(values), .x = from, .y = PrepareResult<S>(to)};
  return RunJob(pool, std::move(job), chunks, Products(nnz, g.out_pixels(), call.batch) + clearing);
}

// The division of a weight gradient into tasks of one tile.
template <typename S>
struct GradientWork {
  ConvWork work;
  SlotTasks tasks;
  Slots<S> sums;

  static GradientWork Make(ffi::ThreadPool& pool, const ConvCall& call, std::shared_ptr<const ConvPlan> plan, S* dw) {
    const int64_t nse = Elements(call.indices), pixels = call.g.out_pixels();
    const int64_t vectors = pixels * call.batch / Element<S>::Products().lanes;
    const int64_t tiles = plan->tiling.row_blocks;
    ConvWork work{.plan = std::move(plan), .segments = tiles};
    const ConvPrograms& programs = work.programs();
    const int64_t slots = GradientSlots(work.units(), vectors, nse, sizeof(Sum<S>));
    const SlotTasks tasks = SlotTasks::Make(work.units(), slots, RepaidParts(work, call.nnz(), pixels), programs.rows,
                                            pool.num_threads());
    work.row_parts = tasks.row_parts();
    Slots<S> sums(dw, nse, call.nnz(), slots, programs.id.get(), programs.entries);
    return {std::move(work), tasks, std::move(sums)};
  }
};

template <typename S>
ffi::Error RunWeightGrad(ffi::ThreadPool& pool, const ConvCall& call, const S* x, const S* y, ffi::AnyBuffer& out,
                         Checker& check) {
  if (!call.planned()) call.CheckContents(check);
  if (!check.ok()) return check.error();
  const ConvGeometry& g = call.g;
  const int64_t nse = Elements(call.indices);
  S* dw = PrepareResult<S>(out);
  if (call.batch * g.out_pixels() == 0) {
    std::fill(dw, dw + nse, S{});
    return ffi::Error::Success();
  }
  if (!call.planned())
    return RunPlanned(pool, PlanSddmm(pool, call.AsRows(), call.AsSource(x), call.AsDestination(y), dw, nse));
  auto plan = PlanFor<S>(call, check);
  if (plan == nullptr) return check.error();
  auto [work, tasks, sums] = GradientWork<S>::Make(pool, call, std::move(plan), dw);
  const Chunks chunks = GradientChunks(0, tasks, sums);
  ConvWeightGradJob<S> job{.work = std::move(work), .x = x, .y = y, .tasks = tasks, .out = std::move(sums)};
  return RunJob(pool, std::move(job), chunks, Products(call.nnz(), g.out_pixels(), call.batch));
}

// Both gradients of a call that is a matrix product.
template <typename S>
ffi::Error RunPointwiseBackward(ffi::ThreadPool& pool, const ConvCall& call, const ConvCall& forward, Values<S> values,
                                const S* ct, const S* x, S* dw, S* dx, Checker& check) {
  const int64_t nse = Elements(call.indices), n = call.batch * call.g.out_pixels();
  call.CheckContents(check, /*checks_perm=*/false);
  if (!check.ok()) return check.error();
  const bool is_fused = IsFused(call.AsRows(), n);
  if (!is_fused) {  // the fused pass does not read the forward pattern, and its `perm_t` is a permutation
    forward.CheckContents(check);
    call.CheckContents(check);
  }
  if (!check.ok()) return check.error();
  return RunMatmulBackward(pool, is_fused, forward.AsRows(), call.AsRows(), std::move(values), call.AsSource(ct),
                           forward.AsSource(x), call.AsDestination(dx), dw, nse);
}

// `call` is the call as of the input gradient, `forward` as of the product.
template <typename S>
ffi::Error RunBackward(ffi::ThreadPool& pool, const ConvCall& call, const ConvCall& forward, Values<S> values,
                       const S* ct, const S* x, ffi::AnyBuffer& to_data, ffi::AnyBuffer& to_x, Checker& check) {
  const ConvGeometry& g = call.g;
  if (call.batch * g.in_pixels() == 0) {
    forward.CheckContents(check);
    call.CheckContents(check);
    if (!check.ok()) return check.error();
    S* dw = PrepareResult<S>(to_data);
    std::fill(dw, dw + Elements(call.indices), S{});
    return ffi::Error::Success();
  }
  if (!call.planned())
    return RunPointwiseBackward(pool, call, forward, std::move(values), ct, x, PrepareResult<S>(to_data),
                                PrepareResult<S>(to_x), check);
  auto plan = PlanFor<S>(call, check);
  if (plan == nullptr) return check.error();
  if (!plan->scatters_once) {
    // The gradients one by one: they have a meaning for any positions.
    ConvCall of_x = call;
    of_x.both = false;
    const ffi::Error error = RunWeightGrad<S>(pool, forward, x, ct, to_data, check);
    return error.failure() ? error : RunProduct<S>(pool, of_x, std::move(values), ct, to_x, check);
  }
  auto [work, tasks, sums] = GradientWork<S>::Make(pool, call, std::move(plan), PrepareResult<S>(to_data));
  Values<S> ordered = InOrder(values, work);
  const Chunks chunks = GradientChunks(ordered.chunks(), tasks, sums);
  ConvBackwardJob<S> job{
      .product = {.work = std::move(work), .data = std::move(ordered), .x = ct, .y = PrepareResult<S>(to_x)},
      .x = x,
      .tasks = tasks,
      .out = std::move(sums)};
  return RunJob(pool, std::move(job), chunks, 2 * Products(call.nnz(), g.out_pixels(), call.batch));
}

ffi::Error ConvImpl(ffi::ThreadPool pool, ffi::AnyBuffer data, ffi::AnyBuffer x, Ints indptr, Ints indices,
                    ffi::Result<ffi::AnyBuffer> y, ffi::Dictionary attributes) {
  Checker check("sparsejax_conv");
  const auto geometry = Numbers(attributes, "geometry");
  const Layouts layouts = Layouts::Decode(attributes, check);
  const ConvGeometry g = ConvGeometry::Decode(geometry, /*transposed=*/false, check);
  check.FloatType("x", x.element_type());
  check.SameType("data", data, x.element_type());
  check.SameType("result", *y, x.element_type());
  if (check.ok()) g.CheckActivations("x", x, g.y.in, g.x.in, g.in_features, check);
  if (check.ok()) g.CheckActivations("result", *y, g.y.out, g.x.out, g.out_features, check);
  check.Size("indptr", Elements(indptr), g.out_features + 1);
  check.Size("data", Elements(data), Elements(indices));
  if (check.ok()) check.Size("result's batch", y->dimensions()[0], x.dimensions()[0]);
  if (!check.ok()) return check.error();
  const ConvCall call{.g = g,
                      .geometry = geometry,
                      .indptr = indptr,
                      .indices = indices,
                      .perm = std::nullopt,
                      .batch = x.dimensions()[0],
                      .layouts = layouts};
  return DispatchGuarded(x.element_type(), [&](auto element) {
    using S = decltype(element);
    return RunProduct<S>(pool, call, Values<S>(OperandData<S>(data), Elements(data)), OperandData<S>(x), *y, check);
  });
}

ffi::Error ConvInputGradImpl(ffi::ThreadPool pool, ffi::AnyBuffer data, ffi::AnyBuffer y, Ints indptr_t,
                             Ints indices_t, Ints perm_t, ffi::Result<ffi::AnyBuffer> x,
                             ffi::Dictionary attributes) {
  Checker check("sparsejax_conv_input_grad");
  const auto geometry = Numbers(attributes, "geometry");
  const Layouts layouts = Layouts::Decode(attributes, check);
  const ConvGeometry g = ConvGeometry::Decode(geometry, /*transposed=*/true, check);
  check.FloatType("y", y.element_type());
  check.SameType("data", data, y.element_type());
  check.SameType("result", *x, y.element_type());
  if (check.ok()) g.CheckActivations("y", y, g.y.out, g.x.out, g.out_features, check);
  if (check.ok()) g.CheckActivations("result", *x, g.y.in, g.x.in, g.in_features, check);
  if (check.ok()) check.Size("indptr_t", Elements(indptr_t), g.columns() + 1);
  check.Size("data", Elements(data), Elements(indices_t));
  check.Size("perm_t", Elements(perm_t), Elements(indices_t));
  if (check.ok()) check.Size("result's batch", x->dimensions()[0], y.dimensions()[0]);
  if (!check.ok()) return check.error();
  const ConvCall call{.g = g,
                      .geometry = geometry,
                      .indptr = indptr_t,
                      .indices = indices_t,
                      .perm = perm_t,
                      .batch = y.dimensions()[0],
                      .layouts = layouts};
  return DispatchGuarded(y.element_type(), [&](auto element) {
    using S = decltype(element);
    return RunProduct<S>(pool, call, Values<S>(OperandData<S>(data), Elements(data)), OperandData<S>(y), *x, check);
  });
}

ffi::Error ConvWeightGradImpl(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::AnyBuffer y, Ints indptr, Ints indices,
                              ffi::Result<ffi::AnyBuffer> out, ffi::Dictionary attributes) {
  Checker check("sparsejax_conv_weight_grad");
  const auto geometry = Numbers(attributes, "geometry");
  const Layouts layouts = Layouts::Decode(attributes, check);
  const ConvGeometry g = ConvGeometry::Decode(geometry, /*transposed=*/false, check);
  check.FloatType("x", x.element_type());
  check.SameType("y", y, x.element_type());
  check.SameType("result", *out, x.element_type());
  if (check.ok()) g.CheckActivations("x", x, g.y.in, g.x.in, g.in_features, check);
  if (check.ok()) g.CheckActivations("y", y, g.y.out, g.x.out, g.out_features, check);
  check.Size("indptr", Elements(indptr), g.out_features + 1);
  check.Size("result", Elements(*out), Elements(indices));
  if (check.ok()) check.Size("y's batch", y.dimensions()[0], x.dimensions()[0]);
  if (!check.ok()) return check.error();
  const ConvCall call{.g = g,
                      .geometry = geometry,
                      .indptr = indptr,
                      .indices = indices,
                      .perm = std::nullopt,
                      .batch = x.dimensions()[0],
                      .layouts = layouts};
  return DispatchGuarded(x.element_type(), [&](auto element) {
    using S = decltype(element);
    return RunWeightGrad<S>(pool, call, OperandData<S>(x), OperandData<S>(y), *out, check);
  });
}

ffi::Error ConvBackwardImpl(ffi::ThreadPool pool, ffi::AnyBuffer ct, ffi::AnyBuffer data, ffi::AnyBuffer x,
                            Ints indptr, Ints indices, Ints indptr_t, Ints indices_t, Ints perm_t,
                            ffi::Result<ffi::AnyBuffer> ddata, ffi::Result<ffi::AnyBuffer> dx,
                            ffi::Dictionary attributes) {
  Checker check("sparsejax_conv_backward");
  const auto geometry = Numbers(attributes, "geometry");
  const Layouts layouts = Layouts::Decode(attributes, check);
  const ConvGeometry g = ConvGeometry::Decode(geometry, /*transposed=*/true, check);
  check.FloatType("ct", ct.element_type());
  check.SameType("data", data, ct.element_type());
  check.SameType("x", x, ct.element_type());
  check.SameType("data's gradient", *ddata, ct.element_type());
  check.SameType("x's gradient", *dx, ct.element_type());
  if (check.ok()) g.CheckActivations("ct", ct, g.y.out, g.x.out, g.out_features, check);
  if (check.ok()) g.CheckActivations("x", x, g.y.in, g.x.in, g.in_features, check);
  if (check.ok()) check.SameShape("x's gradient", *dx, x);
  if (check.ok()) check.Size("indptr_t", Elements(indptr_t), g.columns() + 1);
  check.Size("indptr", Elements(indptr), g.out_features + 1);
  check.Size("indices", Elements(indices), Elements(indices_t));
  check.Size("data", Elements(data), Elements(indices_t));
  check.Size("data's gradient", Elements(*ddata), Elements(indices_t));
  check.Size("perm_t", Elements(perm_t), Elements(indices_t));
  if (check.ok()) check.Size("x's batch", x.dimensions()[0], ct.dimensions()[0]);
  if (!check.ok()) return check.error();
  const ConvCall forward{.g = g,
                         .geometry = geometry,
                         .indptr = indptr,
                         .indices = indices,
                         .perm = std::nullopt,
                         .batch = ct.dimensions()[0],
                      .layouts = layouts};
  const ConvCall call{.g = g,
                      .geometry = geometry,
                      .indptr = indptr_t,
                      .indices = indices_t,
                      .perm = perm_t,
                      .batch = ct.dimensions()[0],
                      .layouts = layouts,
                      .both = true};
  return DispatchGuarded(ct.element_type(), [&](auto element) {
    using S = decltype(element);
    return RunBackward<S>(pool, call, forward, Values<S>(OperandData<S>(data), Elements(data)), OperandData<S>(ct),
                          OperandData<S>(x), *ddata, *dx, check);
  });
}

}  // namespace

int64_t PlanBytes() { return Plans().bytes(); }

XLA_FFI_DEFINE_HANDLER_SYMBOL(ConvHandler, ConvImpl, BindProduct().Attrs());
XLA_FFI_DEFINE_HANDLER_SYMBOL(ConvInputGradHandler, ConvInputGradImpl, BindTransposedProduct().Attrs());
XLA_FFI_DEFINE_HANDLER_SYMBOL(ConvWeightGradHandler, ConvWeightGradImpl, BindProduct().Attrs());
XLA_FFI_DEFINE_HANDLER_SYMBOL(ConvBackwardHandler, ConvBackwardImpl, BindBackward().Attrs());

}  // namespace sparsejax
