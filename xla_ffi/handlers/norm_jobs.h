// The jobs of batch norm and of its gradient, for either layout of activations.
//
// Batch-minor, a channel is contiguous. A task computes whole channels: the elements that it has summed are still in
// its cache when it normalises them. Row-major, all channels of a pixel are contiguous: a row. A task sums some rows.
// When all are summed, a second stage computes the coefficients of each channel from these sums, and a third stage
// normalises the rows.
//
// The gradient of x may have the same memory as the cotangent of y, because each element of the cotangent is read for
// the last time before the gradient's element is written.
#ifndef SPARSEJAX_HANDLERS_NORM_JOBS_H_
#define SPARSEJAX_HANDLERS_NORM_JOBS_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "../plan/partition.h"
#include "../runtime/parallel.h"
#include "../runtime/scratch.h"
#include "types.h"

namespace sparsejax {

// Channels of `size` elements each in batch-minor activations, `per_task` of which are computed per task.
struct NormChannels {
  int64_t count, size, per_task;

  // Elements per task, at least: a few microseconds of work, which is long compared with the time to draw a task.
  static constexpr int64_t kTaskElements = 16384;

  NormChannels(int64_t count, int64_t elements)
      : count(count),
        size(count ? elements / count : 0),
        per_task(CeilDiv(kTaskElements, std::max<int64_t>(1, size))) {}

  Chunks chunks() const { return {.before = 0, .run = CeilDiv(count, per_task), .after = 0}; }

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

// Rows of `channels` elements in row-major activations, divided into parts. Every stage has one chunk per part.
struct NormRows {
  int64_t channels, rows, parts;

  NormRows(int64_t channels, int64_t elements)
      : channels(channels),
        rows(channels ? elements / channels : 0),
        parts(std::clamp<int64_t>(std::min(rows, elements / kElementsPerPart), 1, kWantedTasks)) {}

  Chunks chunks() const { return {.before = parts, .run = parts, .after = parts}; }

  Range RowsOf(int64_t part) const { return Part(rows, parts, part); }
  Range ChannelsOf(int64_t part) const { return Part(channels, parts, part); }

  // Calls f(first row, rows) for the runs of a part, whose sums are formed in the accumulation type. A run is read
  // twice, so it should fit the second-level cache.
  template <typename F>
  void ForEachRun(Range part, const F& f) const {
    const int64_t per_run = std::clamp<int64_t>(kElementsPerPart / std::max<int64_t>(1, channels), 32, 256);
    for (int64_t r = part.begin; r < part.end; r += per_run) f(r, std::min(per_run, part.end - r));
  }

 private:
  static constexpr int64_t kElementsPerPart = 16 * kElementsPerRun;
};

// What it takes to add n elements to the statistics of those before them (Chan, Golub and LeVeque 1979, eq. 2.1). It is
// the same for all channels.
struct Merge {
  bool first;
  double n, inverse, inverse_before, between;

  Merge(double before, double n)
      : first(before == 0),
        n(n),
        inverse(1 / n),
        inverse_before(first ? 0 : 1 / before),
        between(before * n / (before + n)) {}
};

// The sum of some elements of a channel, and the sum of their squared differences from their mean.
struct Statistics {
  double sum = 0, squares = 0;

  // Adds elements with the given sums of x - pivot and of (x - pivot)^2.
  void Add(const Merge& m, double pivot, double off_pivot, double square) {
    // If an element is infinite, so is the pivot, and off_pivot is NaN. The mean is that infinity.
    const double mean = std::isfinite(off_pivot) ? pivot + off_pivot * m.inverse : pivot;
    const double apart = m.first ? 0 : mean - sum * m.inverse_before;
    squares += square - off_pivot * off_pivot * m.inverse + apart * apart * m.between;
    sum += mean * m.n;
  }
  void Add(const Merge& m, const Statistics& other) { Add(m, other.sum * m.inverse, 0, other.squares); }
};

// scale / sqrt(var + epsilon). `var` is the variance as it is stored, so that the factor has the same bits in the
// forward and the backward pass.
template <typename A>
A NormFactor(A scale, A var, double epsilon) {
  return static_cast<A>(scale / std::sqrt(double{var} + epsilon));
}

template <typename S>
struct NormOperands {
  using A = Sum<S>;
  double epsilon;
  bool relu;
  const S *x = nullptr, *residual = nullptr;  // residual may be null
  const A *scale = nullptr, *bias = nullptr;
  S* y = nullptr;
  A *mean = nullptr, *var = nullptr;

  // Writes the mean and the variance of a channel; returns its factor.
  A Finish(int64_t c, const Statistics& all, double count) const {
    mean[c] = static_cast<A>(all.sum / count);
    var[c] = static_cast<A>(all.squares < 0 ? 0 : all.squares / count);
    return NormFactor(scale[c], var[c], epsilon);
  }

  const S* ResidualAt(int64_t i) const { return residual ? residual + i : nullptr; }
};

template <typename S>
struct NormChannelsJob {
  using A = Sum<S>;
  NormChannels channels;
  NormOperands<S> o;

  void Before(int64_t) const {}
  void Run(int64_t task) const {
    channels.ForEachOfTask(task, [&](int64_t c) { RunChannel(c); });
  }
  void After(int64_t) const {}

 private:
  void RunChannel(int64_t c) const {
    const auto& storage = Element<S>::Storage();
    const int64_t at = c * channels.size;
    Statistics all;
    channels.ForEachRun([&](int64_t i, int64_t n) {
      A pivot, off_pivot, square;
      storage.moments(o.x + at + i, &pivot, &off_pivot, &square, n);
      all.Add(Merge(i, n), pivot, off_pivot, square);
    });
    const A factor = o.Finish(c, all, channels.size);
    const NormArgs<A> args = {.mean = o.mean[c], .factor = factor, .bias = o.bias[c], .relu = o.relu};
    channels.ForEachRun(
        [&](int64_t i, int64_t n) { storage.normalize(args, o.x + at + i, o.ResidualAt(at + i), o.y + at + i, n); });
  }
};

template <typename S>
struct NormRowsJob {
  using A = Sum<S>;
  NormRows rows;
  NormOperands<S> o;
  std::shared_ptr<std::vector<Statistics>> partial;  // (parts, channels)
  std::shared_ptr<std::vector<A>> factor;

  NormRowsJob(NormRows rows, NormOperands<S> o)
      : rows(rows),
        o(o),
        partial(std::make_shared<std::vector<Statistics>>(rows.parts * rows.channels)),
        factor(std::make_shared<std::vector<A>>(rows.channels)) {}

  void Before(int64_t part) const {
    const int64_t n = rows.channels;
    A* pivot = Scratch::Local(Scratch::kPartial).Get<A>(3 * n);
    A *off_pivot = pivot + n, *square = pivot + 2 * n;
    Statistics* of_part = partial->data() + part * n;
    const Range range = rows.RowsOf(part);
    rows.ForEachRun(range, [&](int64_t r, int64_t count) {
      Element<S>::Storage().moments_rows(o.x + r * n, pivot, off_pivot, square, count, n);
      const Merge merge(r - range.begin, count);
      for (int64_t c = 0; c < n; ++c) of_part[c].Add(merge, pivot[c], off_pivot[c], square[c]);
    });
  }

  void Run(int64_t part) const {
    const Range range = rows.ChannelsOf(part);
    for (int64_t i = 1; i < rows.parts; ++i) {
      const Range other = rows.RowsOf(i);
      const Merge merge(other.begin, other.end - other.begin);
      for (int64_t c = range.begin; c < range.end; ++c) (*partial)[c].Add(merge, (*partial)[i * rows.channels + c]);
    }
    for (int64_t c = range.begin; c < range.end; ++c) (*factor)[c] = o.Finish(c, (*partial)[c], rows.rows);
  }

  void After(int64_t part) const {
    const Range range = rows.RowsOf(part);
    const int64_t at = range.begin * rows.channels;
    const NormArgs<const A*> args = {.mean = o.mean, .factor = factor->data(), .bias = o.bias, .relu = o.relu};
    Element<S>::Storage().normalize_rows(args, o.x + at, o.ResidualAt(at), o.y + at, range.end - range.begin,
                                         rows.channels);
  }
};

template <typename S>
struct NormGradOperands {
  using A = Sum<S>;
  double epsilon;
  bool relu;
  const S *ct = nullptr, *x = nullptr, *y = nullptr;  // y and dresidual are null without a residual
  const A *ct_mean = nullptr, *ct_var = nullptr;
  const A *scale = nullptr, *bias = nullptr, *mean = nullptr, *var = nullptr;
  S *dx = nullptr, *dresidual = nullptr;
  A *dscale = nullptr, *dbias = nullptr;

  struct Line {
    A slope, offset;
  };
  // Writes the gradients of a channel's scale and bias; returns the line that the gradient of x has besides g * factor.
  Line Finish(int64_t c, double sum, double along, double n) const {
    const double rstd = 1 / std::sqrt(double{var[c]} + epsilon), factor = scale[c] * rstd;
    dbias[c] = static_cast<A>(sum);
    dscale[c] = static_cast<A>(along * rstd);
    return {.slope = static_cast<A>((2.0 * ct_var[c] - factor * rstd * rstd * along) / n),
            .offset = static_cast<A>((ct_mean[c] - factor * sum) / n)};
  }

  const S* YAt(int64_t i) const { return y ? y + i : nullptr; }
  S* DresidualAt(int64_t i) const { return y ? dresidual + i : nullptr; }
  // With a residual, its gradient, which norm_grad_sums has written, is the cotangent times ReLU's derivative.
  const S* g() const { return y ? dresidual : ct; }
  bool relu_of_g() const { return relu && !y; }
};

template <typename S>
struct NormGradChannelsJob {
  using A = Sum<S>;
  NormChannels channels;
  NormGradOperands<S> o;

  void Before(int64_t) const {}
  void Run(int64_t task) const {
    channels.ForEachOfTask(task, [&](int64_t c) { RunChannel(c); });
  }
  void After(int64_t) const {}

 private:
  void RunChannel(int64_t c) const {
    const auto& storage = Element<S>::Storage();
    const int64_t at = c * channels.size;
    NormArgs<A> norm = {
        .mean = o.mean[c], .factor = NormFactor(o.scale[c], o.var[c], o.epsilon), .bias = o.bias[c], .relu = o.relu};
    double sum = 0, along = 0;
    channels.ForEachRun([&](int64_t i, int64_t n) {
      A run_sum, run_along;
      storage.norm_grad_sums(norm, o.ct + at + i, o.x + at + i, o.YAt(at + i), o.DresidualAt(at + i), &run_sum,
                             &run_along, n);
      sum += run_sum, along += run_along;
    });
    const auto line = o.Finish(c, sum, along, channels.size);
    norm.relu = o.relu_of_g();
    const NormGradArgs<A> args = {.norm = norm, .slope = line.slope, .offset = line.offset};
    channels.ForEachRun(
        [&](int64_t i, int64_t n) { storage.norm_grad(args, o.g() + at + i, o.x + at + i, o.dx + at + i, n); });
  }
};

template <typename S>
struct NormGradRowsJob {
  using A = Sum<S>;
  struct Sums {
    double sum = 0, along = 0;
  };
  NormRows rows;
  NormGradOperands<S> o;
  std::shared_ptr<std::vector<Sums>> partial;  // (parts, channels)
  std::shared_ptr<std::vector<A>> factor, slope, offset;

  NormGradRowsJob(NormRows rows, NormGradOperands<S> o)
      : rows(rows), o(o), partial(std::make_shared<std::vector<Sums>>(rows.parts * rows.channels)) {
    for (auto* v : {&factor, &slope, &offset}) *v = std::make_shared<std::vector<A>>(rows.channels);
    for (int64_t c = 0; c < rows.channels; ++c) (*factor)[c] = NormFactor(o.scale[c], o.var[c], o.epsilon);
  }

  void Before(int64_t part) const {
    const int64_t n = rows.channels;
    A *sum = Scratch::Local(Scratch::kPartial).Get<A>(2 * n), *along = sum + n;
    Sums* of_part = partial->data() + part * n;
    rows.ForEachRun(rows.RowsOf(part), [&](int64_t r, int64_t count) {
      const int64_t at = r * n;
      Element<S>::Storage().norm_grad_sums_rows(Args(o.relu), o.ct + at, o.x + at, o.YAt(at), o.DresidualAt(at), sum,
                                                along, count, n);
      for (int64_t c = 0; c < n; ++c) of_part[c].sum += sum[c], of_part[c].along += along[c];
    });
  }

  void Run(int64_t part) const {
    const Range range = rows.ChannelsOf(part);
    for (int64_t c = range.begin; c < range.end; ++c) {
      Sums all;
      for (int64_t i = 0; i < rows.parts; ++i) {
        const Sums& of_part = (*partial)[i * rows.channels + c];
        all.sum += of_part.sum, all.along += of_part.along;
      }
      const auto line = o.Finish(c, all.sum, all.along, rows.rows);
      (*slope)[c] = line.slope, (*offset)[c] = line.offset;
    }
  }

  void After(int64_t part) const {
    const Range range = rows.RowsOf(part);
    const int64_t at = range.begin * rows.channels;
    const NormGradArgs<const A*> args = {.norm = Args(o.relu_of_g()), .slope = slope->data(), .offset = offset->data()};
    Element<S>::Storage().norm_grad_rows(args, o.g() + at, o.x + at, o.dx + at, range.end - range.begin, rows.channels);
  }

 private:
  NormArgs<const A*> Args(bool relu) const {
    return {.mean = o.mean, .factor = factor->data(), .bias = o.bias, .relu = relu};
  }
};

}  // namespace sparsejax

#endif  // SPARSEJAX_HANDLERS_NORM_JOBS_H_
