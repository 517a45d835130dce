// Attention and its gradient. Operands after q, k and v (gradient: after the stored numbers) are what is added to the
// scores and the mask, in this order, where the attributes `bias` and `mask` have four elements: 1 for the axes of
// (batch, heads, queries, keys) that the operand has, 0 for those along which it is the same.
#include "attention_jobs.h"

#include <cstdint>
#include <string>

#include "../runtime/parallel.h"
#include "checks.h"
#include "handlers.h"

namespace sparsejax {
namespace {

using Result = ffi::Result<ffi::AnyBuffer>;
using Axes = ffi::Span<const int64_t>;

class AttentionChecker : public Checker {
 public:
  AttentionChecker(const char* target, const ffi::AnyBuffer& q, const ffi::AnyBuffer& k, const ffi::AnyBuffer& v)
      : Checker(target), type_(q.element_type()) {
    FloatType("q", type_);
    for (const auto& [operand, buffer] : {std::pair("q", &q), std::pair("k", &k), std::pair("v", &v)}) {
      SameType(operand, *buffer, type_);
      Rank(operand, *buffer, 4);
    }
    if (!ok()) return;
    const auto queries = q.dimensions(), keys = k.dimensions();
    sizes = {queries[0], queries[1], keys[1], queries[2], keys[2], queries[3]};
    if (keys[0] != sizes.batch || keys[3] != sizes.features)
      Fail("k", "shape " + ShapeText(keys), "the batch and the features of q, " + ShapeText(queries));
    if (sizes.kv_heads < 1 || sizes.heads % sizes.kv_heads != 0)
      Fail("k", std::to_string(sizes.kv_heads) + " heads", "a divisor of q's " + std::to_string(sizes.heads));
    if (std::max(sizes.queries, sizes.keys) > kMostLength)
      Fail("q", "more than 2^30 queries or keys", "fewer");
    Like("v", v, k);
  }

  void Like(const char* operand, const ffi::AnyBuffer& got, const ffi::AnyBuffer& x) {
    SameType(operand, got, type_);
    const auto a = got.dimensions(), b = x.dimensions();
    if (!std::equal(a.begin(), a.end(), b.begin(), b.end()))
      Fail(operand, "shape " + ShapeText(a), ShapeText(b));
  }
  // One number per example, head and query.
  void PerQuery(const char* operand, const ffi::AnyBuffer& got) {
    SameType(operand, got, sum_type());
    if (ok()) Size(operand, Elements(got), SaturatingMul(sizes.batch * sizes.heads, sizes.queries));
  }

  // The operands after the others, by their axes.
  template <typename A>
  Extra<A> TakeExtra(const ffi::RemainingArgs& rest, Axes bias, Axes mask) {
    Extra<A> extra;
    const size_t count = (bias.size() > 0) + (mask.size() > 0);
    if (rest.size() != count) Fail("bias and mask", std::to_string(rest.size()) + " buffers", std::to_string(count));
    if (ok() && bias.size() > 0) {
      const ffi::AnyBuffer buffer = *rest.get<ffi::AnyBuffer>(0);
      SameType("bias", buffer, sum_type());
      extra.bias_strides = StridesOf<A>("bias", buffer, bias);
      extra.bias = static_cast<const A*>(buffer.untyped_data());
    }
    if (ok() && mask.size() > 0) {
      const ffi::AnyBuffer buffer = *rest.get<ffi::AnyBuffer>(count - 1);
      SameType("mask", buffer, ffi::DataType::PRED);
      extra.mask_strides = StridesOf<A>("mask", buffer, mask);
      extra.mask = static_cast<const bool*>(buffer.untyped_data());
    }
    return extra;
  }

  AttentionSizes sizes{};

 private:
  static constexpr int64_t kMostLength = int64_t{1} << 30;

  ffi::DataType sum_type() const { return type_ == ffi::DataType::F64 ? ffi::DataType::F64 : ffi::DataType::F32; }

  template <typename A>
  typename Extra<A>::Strides StridesOf(const char* operand, const ffi::AnyBuffer& buffer, Axes axes) {
    typename Extra<A>::Strides strides;
    if (axes.size() != 4) Fail(operand, std::to_string(axes.size()) + " axes", "none or 4");
    if (!ok()) return strides;
    int64_t stride = 1;
    const auto take = [&](int axis, int64_t size) {
      const int64_t mine = axes[axis] ? stride : 0;
      if (axes[axis]) stride = SaturatingMul(stride, size);
      return mine;
    };
    strides.key = take(3, sizes.keys);
    strides.query = take(2, sizes.queries);
    strides.head = take(1, sizes.heads);
    strides.batch = take(0, sizes.batch);
    Size(operand, Elements(buffer), stride);
    return strides;
  }

  ffi::DataType type_;
};

template <typename S, typename Job>
void SetOperands(Job& job, const AttentionChecker& check, double scale, bool causal, const Extra<Sum<S>>& extra,
                 const ffi::AnyBuffer& q, const ffi::AnyBuffer& k, const ffi::AnyBuffer& v) {
  job.sizes = check.sizes, job.scale = scale, job.causal = causal, job.extra = extra;
  job.q = OperandData<S>(q), job.k = OperandData<S>(k), job.v = OperandData<S>(v);
}

ffi::Error AttentionImpl(ffi::ThreadPool pool, ffi::AnyBuffer q, ffi::AnyBuffer k, ffi::AnyBuffer v,
                         ffi::RemainingArgs rest, Result y, Result peak, Result log_sum, Axes bias, bool causal,
                         Axes mask, double scale) {
  AttentionChecker check("sparsejax_attention", q, k, v);
  if (!check.ok()) return check.error();
  check.Like("y", *y, q);
  check.PerQuery("peak", *peak);
  check.PerQuery("log_sum", *log_sum);
  return DispatchGuarded(q.element_type(), [&](auto element) {
    using S = decltype(element);
    using A = Sum<S>;
    const Extra<A> extra = check.TakeExtra<A>(rest, bias, mask);
    if (!check.ok()) return check.error();
    AttentionJob<S> job;
    SetOperands<S>(job, check, scale, causal, extra, q, k, v);
    job.call = Scratch::NewCall();
    job.y = PrepareResult<S>(*y), job.peak = PrepareResult<A>(*peak), job.log_sum = PrepareResult<A>(*log_sum);
    const int64_t tasks = job.tasks();
    return RunJob(pool, std::move(job), tasks, check.sizes.multiply_adds());
  });
}

ffi::Error AttentionGradImpl(ffi::ThreadPool pool, ffi::AnyBuffer ct, ffi::AnyBuffer ct_log_sum, ffi::AnyBuffer q,
                             ffi::AnyBuffer k, ffi::AnyBuffer v, ffi::AnyBuffer y, ffi::AnyBuffer peak,
                             ffi::AnyBuffer log_sum, ffi::RemainingArgs rest, Result dq, Result dk, Result dv,
                             Axes bias, bool causal, Axes mask, double scale) {
  AttentionChecker check("sparsejax_attention_grad", q, k, v);
  if (!check.ok()) return check.error();
  check.Like("ct", ct, q);
  check.Like("y", y, q);
  check.Like("dq", *dq, q);
  check.Like("dk", *dk, k);
  check.Like("dv", *dv, k);
  check.PerQuery("ct_log_sum", ct_log_sum);
  check.PerQuery("peak", peak);
  check.PerQuery("log_sum", log_sum);
  return DispatchGuarded(q.element_type(), [&](auto element) {
    using S = decltype(element);
    using A = Sum<S>;
    const Extra<A> extra = check.TakeExtra<A>(rest, bias, mask);
    if (!check.ok()) return check.error();
    AttentionGradJob<S> job;
    SetOperands<S>(job, check, scale, causal, extra, q, k, v);
    job.ct = OperandData<S>(ct), job.y = OperandData<S>(y);
    job.ct_log_sum = OperandData<A>(ct_log_sum);
    job.peak = OperandData<A>(peak), job.log_sum = OperandData<A>(log_sum);
    job.dq = PrepareResult<S>(*dq), job.dk = PrepareResult<S>(*dk), job.dv = PrepareResult<S>(*dv);
    const int64_t tasks = job.tasks();
    return RunJob(pool, std::move(job), tasks, 2 * check.sizes.multiply_adds());
  });
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(AttentionHandler, AttentionImpl,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()  // q
                                  .Arg<ffi::AnyBuffer>()  // k
                                  .Arg<ffi::AnyBuffer>()  // v
                                  .RemainingArgs()        // bias, mask
                                  .Ret<ffi::AnyBuffer>()  // y
                                  .Ret<ffi::AnyBuffer>()  // peak
                                  .Ret<ffi::AnyBuffer>()  // log_sum
                                  .Attr<Axes>("bias")
                                  .Attr<bool>("causal")
                                  .Attr<Axes>("mask")
                                  .Attr<double>("scale"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(AttentionGradHandler, AttentionGradImpl,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()  // ct
                                  .Arg<ffi::AnyBuffer>()  // ct_log_sum
                                  .Arg<ffi::AnyBuffer>()  // q
                                  .Arg<ffi::AnyBuffer>()  // k
                                  .Arg<ffi::AnyBuffer>()  // v
                                  .Arg<ffi::AnyBuffer>()  // y
                                  .Arg<ffi::AnyBuffer>()  // peak
                                  .Arg<ffi::AnyBuffer>()  // log_sum
                                  .RemainingArgs()        // bias, mask
                                  .Ret<ffi::AnyBuffer>()  // dq
                                  .Ret<ffi::AnyBuffer>()  // dk
                                  .Ret<ffi::AnyBuffer>()  // dv
                                  .Attr<Axes>("bias")
                                  .Attr<bool>("causal")
                                  .Attr<Axes>("mask")
                                  .Attr<double>("scale"));

}  // namespace sparsejax
