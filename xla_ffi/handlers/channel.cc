// Channel sums of activations (batch, ..., channels) in either layout.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "../plan/partition.h"
#include "../runtime/parallel.h"
#include "../runtime/scratch.h"
#include "checks.h"
#include "handlers.h"
#include "layouts.h"
#include "types.h"

namespace sparsejax {
namespace {

// The sum of x, or of x * y where y is not null, over each channel. Batch-minor: a channel is contiguous.
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

// The same for row-major activations: all channels of an example are contiguous. A task adds up some examples.
template <typename S>
struct RowsJob {
  const S* x;
  const S* y;  // may be null
  Sum<S>* out;
  int64_t channels, rows;
  int64_t parts;
  std::shared_ptr<std::vector<double>> partial;  // (parts, channels)

  void Run(int64_t chunk) const {
    constexpr int64_t kChannels = 1024;  // whose sums are in the first-level cache
    const Range part = Part(rows, parts, chunk);
    Sum<S>* run = Scratch::Local(Scratch::kPartial).Get<Sum<S>>(kChannels);
    for (int64_t c = 0; c < channels; c += kChannels) {
      const int64_t some = std::min(kChannels, channels - c);
      double* total = partial->data() + chunk * channels + c;
      for (int64_t r = part.begin; r < part.end; r += kRowsPerRun) {
        const int64_t at = r * channels + c;
        std::fill_n(run, some, Sum<S>(0));
        Element<S>::Storage().add_rows(x + at, y == nullptr ? nullptr : y + at, std::min(kRowsPerRun, part.end - r),
                                       channels, some, run);
        for (int64_t i = 0; i < some; ++i) total[i] += run[i];
      }
    }
  }

  void Before(int64_t) const {}
  void After(int64_t) const {
    for (int64_t c = 0; c < channels; ++c) {
      double total = 0;
      for (int64_t i = 0; i < parts; ++i) total += (*partial)[i * channels + c];
      out[c] = static_cast<Sum<S>>(total);
    }
  }

  // Examples that are summed in the accumulation type, as kElementsPerRun is for the partial sums of a channel.
  static constexpr int64_t kRowsPerRun = 64;
};

// Elements below which a part is not worth a chunk.
constexpr int64_t kElementsPerPart = 16 * kElementsPerRun;

template <typename S>
ffi::Error SumChannels(ffi::ThreadPool& pool, const S* x, const S* y, Sum<S>* out, int64_t channels, int64_t size) {
  const int64_t wanted = CeilDiv(kWantedTasks, std::max<int64_t>(1, channels));
  const int64_t parts = std::clamp<int64_t>(wanted, 1, 1 + size / kElementsPerPart);
  auto partial = std::make_shared<std::vector<double>>(channels * parts);
  ChannelJob<S> job{
      .x = x, .y = y, .out = out, .channels = channels, .size = size, .parts = parts, .partial = std::move(partial)};
  return RunJob(pool, std::move(job), Chunks{.before = 0, .run = channels * parts, .after = 1}, channels * size);
}

template <typename S>
ffi::Error SumRows(ffi::ThreadPool& pool, const S* x, const S* y, Sum<S>* out, int64_t channels, int64_t rows) {
  const int64_t parts = std::clamp<int64_t>(channels * rows / kElementsPerPart, 1, kWantedTasks);
  auto partial = std::make_shared<std::vector<double>>(channels * parts);
  RowsJob<S> job{
      .x = x, .y = y, .out = out, .channels = channels, .rows = rows, .parts = parts, .partial = std::move(partial)};
  return RunJob(pool, std::move(job), Chunks{.before = 0, .run = parts, .after = 1}, channels * rows);
}

ffi::Error RunChannelJob(const char* name, ffi::ThreadPool& pool, const ffi::AnyBuffer& x, const ffi::AnyBuffer* y,
                         ffi::AnyBuffer& out, ffi::Dictionary attributes) {
  Checker check(name);
  const Layouts layouts = Layouts::Decode(attributes, check);
  check.FloatType("x", x.element_type());
  const auto shape = x.dimensions();
  if (shape.size() < 2) check.Fail("x", std::to_string(shape.size()) + " axes", "two or more");
  if (y != nullptr) {
    check.SameType("y", *y, x.element_type());
    check.SameShape("y", *y, x);
    if (layouts.x != layouts.y) check.Fail("layouts", "two layouts", "one, because the arrays are read together");
  }
  const bool wide = x.element_type() == ffi::DataType::F64;
  check.SameType("result", out, wide ? ffi::DataType::F64 : ffi::DataType::F32);
  if (check.ok()) check.Size("result", Elements(out), shape[shape.size() - 1]);
  if (!check.ok()) return check.error();
  const int64_t channels = Elements(out), size = channels ? Elements(x) / channels : 0;
  return DispatchGuarded(x.element_type(), [&](auto element) {
    using S = decltype(element);
    const auto sum = layouts.x == Layout::kRowMajor ? SumRows<S> : SumChannels<S>;
    return sum(pool, OperandData<S>(x), y ? OperandData<S>(*y) : nullptr, PrepareResult<Sum<S>>(out), channels, size);
  });
}

ffi::Error ChannelSumImpl(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::Result<ffi::AnyBuffer> out,
                          ffi::Dictionary attributes) {
  return RunChannelJob("sparsejax_channel_sum", pool, x, nullptr, *out, attributes);
}

ffi::Error ChannelDotImpl(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::AnyBuffer y, ffi::Result<ffi::AnyBuffer> out,
                          ffi::Dictionary attributes) {
  return RunChannelJob("sparsejax_channel_dot", pool, x, &y, *out, attributes);
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    ChannelSumHandler, ChannelSumImpl,
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<ffi::AnyBuffer>().Ret<ffi::AnyBuffer>().Attrs());

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    ChannelDotHandler, ChannelDotImpl,
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<ffi::AnyBuffer>().Arg<ffi::AnyBuffer>().Ret<ffi::AnyBuffer>().Attrs());

}  // namespace sparsejax
