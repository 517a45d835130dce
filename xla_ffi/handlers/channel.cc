// Channel sums of batch-minor activations. A logical array (batch, ..., channels) is (channels, ..., batch) in memory,
// so a channel is contiguous.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "../plan/partition.h"
#include "../runtime/parallel.h"
#include "checks.h"
#include "handlers.h"
#include "types.h"

namespace sparsejax {
namespace {

// The sum of x, or of x * y where y is not null, over each channel.
template <typename S>
struct ChannelJob {
  const S* x;
  const S* y;  // may be null
  Sum<S>* out;
  int64_t channels;
  int64_t size;   // elements per channel
  int64_t parts;  // chunks per channel
  std::shared_ptr<std::vector<double>> partial;

  void Run(int64_t chunk) const {
    const int64_t channel = chunk / parts;
    const Range part = Part(size, parts, chunk % parts);
    const auto& storage = Element<S>::Storage();
    double total = 0;
    for (int64_t i = part.begin; i < part.end; i += kElementsPerRun) {
      const int64_t n = std::min(kElementsPerRun, part.end - i), at = channel * size + i;
      total += y == nullptr ? storage.sum(x + at, n) : storage.dot(x + at, y + at, n);
    }
    (*partial)[chunk] = total;
  }

  void Before(int64_t) const {}
  void After(int64_t) const {
    for (int64_t c = 0; c < channels; ++c) {
      double total = 0;
      for (int64_t i = 0; i < parts; ++i) total += (*partial)[c * parts + i];
      out[c] = static_cast<Sum<S>>(total);
    }
  }
};

ffi::Error RunChannelJob(const char* name, ffi::ThreadPool& pool, const ffi::AnyBuffer& x, const ffi::AnyBuffer* y,
                         ffi::AnyBuffer& out) {
  Checker check(name);
  check.FloatType("x", x.element_type());
  const auto shape = x.dimensions();
  if (shape.size() < 2) check.Fail("x", std::to_string(shape.size()) + " axes", "two or more");
  if (y != nullptr) {
    check.SameType("y", *y, x.element_type());
    check.SameShape("y", *y, x);
  }
  const bool wide = x.element_type() == ffi::DataType::F64;
  check.SameType("result", out, wide ? ffi::DataType::F64 : ffi::DataType::F32);
  if (check.ok()) check.Size("result", Elements(out), shape[shape.size() - 1]);
  if (!check.ok()) return check.error();
  const int64_t channels = Elements(out), size = channels ? Elements(x) / channels : 0;
  // A part of fewer than 16 runs is not worth a chunk.
  const int64_t most_parts = 1 + size / (16 * kElementsPerRun);
  const int64_t parts = std::clamp<int64_t>(CeilDiv(kWantedTasks, std::max<int64_t>(1, channels)), 1, most_parts);
  return DispatchGuarded(x.element_type(), [&](auto element) {
    using S = decltype(element);
    ChannelJob<S> job{.x = OperandData<S>(x),
                      .y = y ? OperandData<S>(*y) : nullptr,
                      .out = PrepareResult<Sum<S>>(out),
                      .channels = channels,
                      .size = size,
                      .parts = parts,
                      .partial = std::make_shared<std::vector<double>>(channels * parts)};
    return RunJob(pool, std::move(job), Chunks{.before = 0, .run = channels * parts, .after = 1}, channels * size);
  });
}

ffi::Error ChannelSumImpl(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::Result<ffi::AnyBuffer> out) {
  return RunChannelJob("sparsejax_channel_sum", pool, x, nullptr, *out);
}

ffi::Error ChannelDotImpl(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::AnyBuffer y, ffi::Result<ffi::AnyBuffer> out) {
  return RunChannelJob("sparsejax_channel_dot", pool, x, &y, *out);
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    ChannelSumHandler, ChannelSumImpl,
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<ffi::AnyBuffer>().Ret<ffi::AnyBuffer>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    ChannelDotHandler, ChannelDotImpl,
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<ffi::AnyBuffer>().Arg<ffi::AnyBuffer>().Ret<ffi::AnyBuffer>());

}  // namespace sparsejax
