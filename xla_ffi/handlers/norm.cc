// Batch norm in training, fused with ReLU and a residual, and its gradient, on batch-minor activations. A logical array
// (batch, ..., channels) is (channels, ..., batch) in memory, so a channel is contiguous, and channels are independent
// of each other. A task computes whole channels: the elements that it has summed are still in its cache when it
// normalises them. The gradient of x may have the same memory as the cotangent of y, because each element of the
// cotangent is read for the last time before the gradient's element is written.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>

#include "../plan/partition.h"
#include "../runtime/parallel.h"
#include "checks.h"
#include "handlers.h"
#include "types.h"

namespace sparsejax {
namespace {

// Elements per task, at least: a few microseconds of work, which is long compared with the time to draw a task.
constexpr int64_t kTaskElements = 16384;

// Channels of `size` elements each, `per_task` of which are computed per task.
struct Channels {
  int64_t count, size, per_task;

  Channels(int64_t count, int64_t elements)
      : count(count),
        size(count ? elements / count : 0),
        per_task(CeilDiv(kTaskElements, std::max<int64_t>(1, size))) {}

  int64_t tasks() const { return CeilDiv(count, per_task); }

  template <typename F>
  void ForEachOfTask(int64_t task, const F& f) const {
    const int64_t end = std::min(count, (task + 1) * per_task);
    for (int64_t c = task * per_task; c < end; ++c) f(c);
  }
  // Calls f(offset of the run in its channel, elements of the run) for the runs of a channel.
  template <typename F>
  void ForEachRun(const F& f) const {
    for (int64_t i = 0; i < size; i += kElementsPerRun) f(i, std::min(kElementsPerRun, size - i));
  }
};

// `var` is the variance as it is stored, so that factor = scale / sqrt(var + epsilon) has the same bits in the forward
// and the backward pass.
template <typename A>
NormArgs<A> MakeArgs(A mean, A var, A scale, A bias, double epsilon, bool relu) {
  return {.mean = mean,
          .factor = static_cast<A>(scale / std::sqrt(double{var} + epsilon)),
          .bias = bias,
          .relu = relu};
}

// The number of some elements, their sum, and the sum of their squared differences from the mean.
struct Statistics {
  double count = 0, sum = 0, squares = 0;

  // Adds a run of n elements with the given sums of x - pivot and of (x - pivot)^2 (Chan, Golub and LeVeque 1979,
  // eq. 2.1).
  void Add(double n, double pivot, double off_pivot, double square) {
    // If an element is infinite, so is the pivot, and off_pivot is NaN. The mean is that infinity.
    const double run_mean = std::isfinite(off_pivot) ? pivot + off_pivot / n : pivot;
    const double apart = count > 0 ? run_mean - sum / count : 0;
    squares += square - off_pivot * off_pivot / n + apart * apart * (count * n / (count + n));
    sum += run_mean * n;
    count += n;
  }
};

template <typename S>
struct NormJob {
  using A = Sum<S>;
  Channels channels;
  double epsilon;
  bool relu;
  const S *x = nullptr, *residual = nullptr;  // residual may be null
  const A *scale = nullptr, *bias = nullptr;
  S* y = nullptr;
  A *mean = nullptr, *var = nullptr;

  void Run(int64_t task) const {
    channels.ForEachOfTask(task, [&](int64_t c) { RunChannel(c); });
  }

 private:
  void RunChannel(int64_t c) const {
    const auto& storage = Element<S>::Storage();
    const int64_t at = c * channels.size;
    Statistics all;
    channels.ForEachRun([&](int64_t i, int64_t n) {
      A pivot, off_pivot, square;
      storage.moments(x + at + i, n, &pivot, &off_pivot, &square);
      all.Add(n, pivot, off_pivot, square);
    });
    mean[c] = static_cast<A>(all.sum / all.count);
    var[c] = static_cast<A>(all.squares < 0 ? 0 : all.squares / all.count);
    const NormArgs<A> args = MakeArgs(mean[c], var[c], scale[c], bias[c], epsilon, relu);
    channels.ForEachRun([&](int64_t i, int64_t n) {
      storage.normalize(args, x + at + i, residual ? residual + at + i : nullptr, y + at + i, n);
    });
  }
};

template <typename S>
struct NormGradJob {
  using A = Sum<S>;
  Channels channels;
  double epsilon;
  bool relu;
  const S *ct = nullptr, *x = nullptr, *y = nullptr;  // y and dresidual are null without a residual
  const A *ct_mean = nullptr, *ct_var = nullptr;
  const A *scale = nullptr, *bias = nullptr, *mean = nullptr, *var = nullptr;
  S *dx = nullptr, *dresidual = nullptr;
  A *dscale = nullptr, *dbias = nullptr;

  void Run(int64_t task) const {
    channels.ForEachOfTask(task, [&](int64_t c) { RunChannel(c); });
  }

 private:
  void RunChannel(int64_t c) const {
    const auto& storage = Element<S>::Storage();
    const int64_t at = c * channels.size;
    const NormArgs<A> norm = MakeArgs(mean[c], var[c], scale[c], bias[c], epsilon, relu);
    double sum = 0, along = 0;
    channels.ForEachRun([&](int64_t i, int64_t n) {
      A run_sum, run_along;
      storage.norm_grad_sums(norm, ct + at + i, x + at + i, y ? y + at + i : nullptr, y ? dresidual + at + i : nullptr,
                             n, &run_sum, &run_along);
      sum += run_sum, along += run_along;
    });
    const double rstd = 1 / std::sqrt(double{var[c]} + epsilon), factor = scale[c] * rstd, n = channels.size;
    dbias[c] = static_cast<A>(sum);
    dscale[c] = static_cast<A>(along * rstd);
    const A slope = static_cast<A>((2.0 * ct_var[c] - factor * rstd * rstd * along) / n);
    const A offset = static_cast<A>((ct_mean[c] - factor * sum) / n);
    // With a residual, its gradient, which norm_grad_sums has just written, is the cotangent times ReLU's derivative.
    NormGradArgs<A> args = {.norm = norm, .slope = slope, .offset = offset};
    args.norm.relu = relu && !y;
    const S* g = y ? dresidual : ct;
    channels.ForEachRun(
        [&](int64_t i, int64_t n) { storage.norm_grad(args, g + at + i, x + at + i, dx + at + i, n); });
  }
};

// Checks operands against x, which determines the shape and the dtypes.
class NormChecker : public Checker {
 public:
  NormChecker(const char* target, const ffi::AnyBuffer& x, std::string_view activation) : Checker(target), x_(x) {
    FloatType("x", x.element_type());
    const size_t axes = x.dimensions().size();
    if (axes < 2) Fail("x", std::to_string(axes) + " axes", "two or more");
    if (activation != "none" && activation != "relu") Fail("activation", std::string(activation), "none or relu");
  }
  void Activation(const char* operand, const ffi::AnyBuffer& b) {
    SameType(operand, b, x_.element_type());
    SameShape(operand, b, x_);
  }
  void Vector(const char* operand, const ffi::AnyBuffer& b) {
    SameType(operand, b, x_.element_type() == ffi::DataType::F64 ? ffi::DataType::F64 : ffi::DataType::F32);
    if (ok()) Size(operand, Elements(b), channels());
  }
  int64_t channels() const { return x_.dimensions().back(); }

 private:
  const ffi::AnyBuffer& x_;
};

template <typename T>
T* Data(const ffi::AnyBuffer& b) {
  return reinterpret_cast<T*>(b.untyped_data());
}
template <typename T>
T* Data(const std::optional<ffi::AnyBuffer>& b) {
  return b ? Data<T>(*b) : nullptr;
}

// The optional last operand.
std::optional<ffi::AnyBuffer> Optional(const char* operand, const ffi::RemainingArgs& rest, NormChecker& check) {
  if (rest.size() > 1) check.Fail(operand, std::to_string(rest.size()) + " buffers", "one or none");
  if (rest.size() != 1) return std::nullopt;
  const ffi::AnyBuffer buffer = *rest.get<ffi::AnyBuffer>(0);
  check.Activation(operand, buffer);
  return buffer;
}

using Result = ffi::Result<ffi::AnyBuffer>;

ffi::Error BatchNormImpl(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::AnyBuffer scale, ffi::AnyBuffer bias,
                         ffi::RemainingArgs rest, Result y, Result mean, Result var, std::string_view activation,
                         double epsilon) {
  NormChecker check("sparsejax_batch_norm", x, activation);
  if (!check.ok()) return check.error();
  const auto residual = Optional("residual", rest, check);
  check.Activation("y", *y);
  check.Vector("scale", scale);
  check.Vector("bias", bias);
  check.Vector("mean", *mean);
  check.Vector("var", *var);
  if (!check.ok()) return check.error();
  const Channels channels(check.channels(), Elements(x));
  return DispatchGuarded(x.element_type(), [&](auto element) {
    using S = decltype(element);
    using A = Sum<S>;
    NormJob<S> job{.channels = channels, .epsilon = epsilon, .relu = activation == "relu"};
    job.x = OperandData<S>(x), job.residual = Data<S>(residual);
    job.scale = Data<A>(scale), job.bias = Data<A>(bias);
    job.y = PrepareResult<S>(*y), job.mean = PrepareResult<A>(*mean), job.var = PrepareResult<A>(*var);
    return RunJob(pool, std::move(job), channels.tasks(), channels.count * channels.size);
  });
}

ffi::Error BatchNormGradImpl(ffi::ThreadPool pool, ffi::AnyBuffer ct, ffi::AnyBuffer ct_mean, ffi::AnyBuffer ct_var,
                             ffi::AnyBuffer x, ffi::AnyBuffer scale, ffi::AnyBuffer bias, ffi::AnyBuffer mean,
                             ffi::AnyBuffer var, ffi::RemainingArgs rest, Result dx, Result dscale, Result dbias,
                             ffi::RemainingRets more, std::string_view activation, double epsilon) {
  NormChecker check("sparsejax_batch_norm_grad", x, activation);
  if (!check.ok()) return check.error();
  const auto y = Optional("y", rest, check);
  const bool relu = activation == "relu";
  if (y && !relu) check.Fail("y", "a buffer", "none without an activation");
  if (more.size() != rest.size()) check.Fail("dresidual", std::to_string(more.size()) + " buffers", "as many as y");
  check.Activation("ct", ct);
  check.Activation("dx", *dx);
  const std::pair<const char*, const ffi::AnyBuffer*> vectors[] = {
      {"ct_mean", &ct_mean}, {"ct_var", &ct_var}, {"scale", &scale},    {"bias", &bias},
      {"mean", &mean},       {"var", &var},       {"dscale", &*dscale}, {"dbias", &*dbias}};
  for (const auto& [operand, buffer] : vectors) check.Vector(operand, *buffer);
  std::optional<ffi::AnyBuffer> dresidual;
  if (check.ok() && y) {
    dresidual = **more.get<ffi::AnyBuffer>(0);
    check.Activation("dresidual", *dresidual);
  }
  if (!check.ok()) return check.error();
  const Channels channels(check.channels(), Elements(x));
  return DispatchGuarded(x.element_type(), [&](auto element) {
    using S = decltype(element);
    using A = Sum<S>;
    NormGradJob<S> job{.channels = channels, .epsilon = epsilon, .relu = relu};
    job.ct = OperandData<S>(ct), job.ct_mean = Data<A>(ct_mean), job.ct_var = Data<A>(ct_var);
    job.x = OperandData<S>(x), job.y = Data<S>(y);
    job.scale = Data<A>(scale), job.bias = Data<A>(bias), job.mean = Data<A>(mean), job.var = Data<A>(var);
    job.dx = PrepareResult<S>(*dx, ct), job.dresidual = dresidual ? PrepareResult<S>(*dresidual) : nullptr;
    job.dscale = PrepareResult<A>(*dscale), job.dbias = PrepareResult<A>(*dbias);
    return RunJob(pool, std::move(job), channels.tasks(), channels.count * channels.size);
  });
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(BatchNormHandler, BatchNormImpl,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()  // x
                                  .Arg<ffi::AnyBuffer>()  // scale
                                  .Arg<ffi::AnyBuffer>()  // bias
                                  .RemainingArgs()        // residual
                                  .Ret<ffi::AnyBuffer>()  // y
                                  .Ret<ffi::AnyBuffer>()  // mean
                                  .Ret<ffi::AnyBuffer>()  // var
                                  .Attr<std::string_view>("activation")
                                  .Attr<double>("epsilon"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(BatchNormGradHandler, BatchNormGradImpl,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()  // ct
                                  .Arg<ffi::AnyBuffer>()  // ct_mean
                                  .Arg<ffi::AnyBuffer>()  // ct_var
                                  .Arg<ffi::AnyBuffer>()  // x
                                  .Arg<ffi::AnyBuffer>()  // scale
                                  .Arg<ffi::AnyBuffer>()  // bias
                                  .Arg<ffi::AnyBuffer>()  // mean
                                  .Arg<ffi::AnyBuffer>()  // var
                                  .RemainingArgs()        // y
                                  .Ret<ffi::AnyBuffer>()  // dx
                                  .Ret<ffi::AnyBuffer>()  // dscale
                                  .Ret<ffi::AnyBuffer>()  // dbias
                                  .RemainingRets()        // dresidual
                                  .Attr<std::string_view>("activation")
                                  .Attr<double>("epsilon"));

}  // namespace sparsejax
