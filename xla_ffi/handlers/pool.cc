// Window sums and maxima, and their transposes. A task is a plane: all examples of one channel, where activations are
// batch-minor, or all channels of one example, where they are row-major. In both, the elements of a pixel are
// contiguous.
#include <cstdint>
#include <type_traits>

#include "../plan/partition.h"
#include "../runtime/parallel.h"
#include "checks.h"
#include "handlers.h"
#include "layouts.h"
#include "types.h"

namespace sparsejax {
namespace {

// The `geometry` attribute: in, out, window, stride, low padding of the first spatial axis, then of the second.
PoolArgs DecodePool(ffi::Span<const int64_t> a, Checker& check) {
  constexpr size_t kNumbers = 10;
  PoolArgs p{};
  if (a.size() != kNumbers) {
    check.Fail("geometry", std::to_string(a.size()) + " numbers", std::to_string(kNumbers));
    return p;
  }
  constexpr int64_t kMost = int64_t{1} << 31;
  for (size_t i = 0; i < kNumbers; ++i)
    if (a[i] <= -kMost || a[i] >= kMost) check.Fail("geometry", "value " + std::to_string(a[i]), "less than 2**31");
  p.in_h = a[0], p.out_h = a[1], p.window_h = a[2], p.stride_h = a[3], p.pad_h = a[4];
  p.in_w = a[5], p.out_w = a[6], p.window_w = a[7], p.stride_w = a[8], p.pad_w = a[9];
  check.AtLeast("geometry's window and stride", std::min({p.window_h, p.window_w, p.stride_h, p.stride_w}), 1);
  check.AtLeast("geometry's padding", std::min(p.pad_h, p.pad_w), 0);
  if (check.ok() && p.window_h * p.window_w >= kMost)
    check.Fail("geometry's window", "too many positions", "less than 2**31");
  return p;
}

// `buffer` is (batch, *spatial, channels) with one or two spatial axes.
void CheckPlane(const char* operand, const ffi::AnyBuffer& buffer, int64_t batch, int64_t h, int64_t w,
                int64_t channels, Checker& check) {
  const auto d = buffer.dimensions();
  if (d.size() != 3 && d.size() != 4) return check.Fail(operand, std::to_string(d.size()) + " axes", "3 or 4");
  const int64_t height = d.size() == 4 ? d[1] : 1;
  check.Size(operand, d[0], batch);
  check.Size(operand, height, h);
  check.Size(operand, d[d.size() - 2], w);
  check.Size(operand, d[d.size() - 1], channels);
}

// Calls kernel(args, x, y, arg) with each plane.
template <typename S, typename Kernel>
struct PlaneJob {
  PoolArgs args;
  S* x;
  S* y;
  int32_t* arg;              // may be null
  int64_t x_plane, y_plane;  // elements per plane; arg has as many as y
  Kernel kernel;

  void Run(int64_t plane) const {
    kernel(args, x + plane * x_plane, y + plane * y_plane, arg == nullptr ? nullptr : arg + plane * y_plane);
  }
};

// The operands and results: x has the shape of the pool's input; y and arg have that of its output.
struct PoolOperands {
  const ffi::AnyBuffer* x;
  const ffi::AnyBuffer* y;
  const ffi::AnyBuffer* arg;  // null for sums
};

enum class PoolOp { kSum, kUnsum, kMax, kTake, kPut };

ffi::Error RunPool(const char* name, PoolOp op, ffi::ThreadPool& pool, const PoolOperands& o,
                   ffi::Dictionary attributes) {
  Checker check(name);
  PoolArgs p = DecodePool(Numbers(attributes, "geometry"), check);
  const Layouts layouts = Layouts::Decode(attributes, check);
  if (layouts.x != layouts.y) check.Fail("layouts", "two layouts", "one for both sides");
  check.FloatType("x", o.x->element_type());
  check.SameType("y", *o.y, o.x->element_type());
  const auto shape = o.x->dimensions();
  if (shape.size() != 3 && shape.size() != 4) check.Fail("x", std::to_string(shape.size()) + " axes", "3 or 4");
  if (!check.ok()) return check.error();
  const int64_t batch = shape[0], channels = shape[shape.size() - 1];
  CheckPlane("x", *o.x, batch, p.in_h, p.in_w, channels, check);
  CheckPlane("y", *o.y, batch, p.out_h, p.out_w, channels, check);
  if (o.arg != nullptr) {
    check.SameType("arg", *o.arg, ffi::DataType::S32);
    if (check.ok()) CheckPlane("arg", *o.arg, batch, p.out_h, p.out_w, channels, check);
  }
  if (!check.ok()) return check.error();
  const bool row_major = layouts.x == Layout::kRowMajor;
  const int64_t planes = row_major ? batch : channels;
  p.batch = row_major ? channels : batch;
  const int64_t in = SaturatingMul(p.in_h * p.in_w, p.batch), out = SaturatingMul(p.out_h * p.out_w, p.batch);
  const int64_t work = SaturatingMul(planes, op == PoolOp::kUnsum || op == PoolOp::kPut ? in : out);
  return DispatchGuarded(o.x->element_type(), [&](auto element) {
    using S = decltype(element);
    const bool writes_x = op == PoolOp::kUnsum || op == PoolOp::kPut;
    S* x = writes_x ? PrepareResult<S>(*o.x) : static_cast<S*>(o.x->untyped_data());
    S* y = writes_x ? static_cast<S*>(o.y->untyped_data()) : PrepareResult<S>(*o.y);
    int32_t* arg = o.arg == nullptr      ? nullptr
                   : op == PoolOp::kMax ? PrepareResult<int32_t>(*o.arg)
                                        : static_cast<int32_t*>(o.arg->untyped_data());
    const auto run = [&](auto kernel) {
      PlaneJob<S, decltype(kernel)> job{
          .args = p, .x = x, .y = y, .arg = arg, .x_plane = in, .y_plane = out, .kernel = kernel};
      return RunJob(pool, std::move(job), p.batch == 0 ? 0 : planes, work);
    };
    switch (op) {
      case PoolOp::kSum:
        return run([](const PoolArgs& p, S* x, S* y, int32_t*) { Element<S>::Storage().sum_pool(p, x, y); });
      case PoolOp::kUnsum:
        return run([](const PoolArgs& p, S* x, S* y, int32_t*) { Element<S>::Storage().sum_unpool(p, y, x); });
      case PoolOp::kMax:
        return run([](const PoolArgs& p, S* x, S* y, int32_t* arg) { Element<S>::Storage().max_pool(p, x, y, arg); });
      case PoolOp::kTake:
        return run([](const PoolArgs& p, S* x, S* y, int32_t* arg) { Element<S>::Storage().max_take(p, x, arg, y); });
      default:
        return run([](const PoolArgs& p, S* x, S* y, int32_t* arg) { Element<S>::Storage().max_put(p, y, arg, x); });
    }
  });
}

ffi::Error SumPoolImpl(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::Result<ffi::AnyBuffer> y,
                       ffi::Dictionary attributes) {
  return RunPool("sparsejax_sum_pool", PoolOp::kSum, pool, {&x, &*y, nullptr}, attributes);
}

ffi::Error SumUnpoolImpl(ffi::ThreadPool pool, ffi::AnyBuffer y, ffi::Result<ffi::AnyBuffer> x,
                         ffi::Dictionary attributes) {
  return RunPool("sparsejax_sum_unpool", PoolOp::kUnsum, pool, {&*x, &y, nullptr}, attributes);
}

ffi::Error MaxPoolImpl(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::Result<ffi::AnyBuffer> y,
                       ffi::Result<ffi::AnyBuffer> arg, ffi::Dictionary attributes) {
  return RunPool("sparsejax_max_pool", PoolOp::kMax, pool, {&x, &*y, &*arg}, attributes);
}

ffi::Error MaxTakeImpl(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::AnyBuffer arg, ffi::Result<ffi::AnyBuffer> y,
                       ffi::Dictionary attributes) {
  return RunPool("sparsejax_max_take", PoolOp::kTake, pool, {&x, &*y, &arg}, attributes);
}

ffi::Error MaxPutImpl(ffi::ThreadPool pool, ffi::AnyBuffer y, ffi::AnyBuffer arg, ffi::Result<ffi::AnyBuffer> x,
                      ffi::Dictionary attributes) {
  return RunPool("sparsejax_max_put", PoolOp::kPut, pool, {&*x, &y, &arg}, attributes);
}

}  // namespace

#define SPARSEJAX_POOL_BINDING(arguments, results) \
  ffi::Ffi::Bind().Ctx<ffi::ThreadPool>() arguments results.Attrs()
#define SPARSEJAX_ARG .Arg<ffi::AnyBuffer>()
#define SPARSEJAX_RET .Ret<ffi::AnyBuffer>()

XLA_FFI_DEFINE_HANDLER_SYMBOL(SumPoolHandler, SumPoolImpl, SPARSEJAX_POOL_BINDING(SPARSEJAX_ARG, SPARSEJAX_RET));
XLA_FFI_DEFINE_HANDLER_SYMBOL(SumUnpoolHandler, SumUnpoolImpl, SPARSEJAX_POOL_BINDING(SPARSEJAX_ARG, SPARSEJAX_RET));
XLA_FFI_DEFINE_HANDLER_SYMBOL(MaxPoolHandler, MaxPoolImpl,
                              SPARSEJAX_POOL_BINDING(SPARSEJAX_ARG, SPARSEJAX_RET SPARSEJAX_RET));
XLA_FFI_DEFINE_HANDLER_SYMBOL(MaxTakeHandler, MaxTakeImpl,
                              SPARSEJAX_POOL_BINDING(SPARSEJAX_ARG SPARSEJAX_ARG, SPARSEJAX_RET));
XLA_FFI_DEFINE_HANDLER_SYMBOL(MaxPutHandler, MaxPutImpl,
                              SPARSEJAX_POOL_BINDING(SPARSEJAX_ARG SPARSEJAX_ARG, SPARSEJAX_RET));

}  // namespace sparsejax
