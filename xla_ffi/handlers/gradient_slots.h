// The result of a weight gradient. Each slot has sums of its own, which one task at a time adds to; at the end the
// slots are added up in their order.
#ifndef SPARSEJAX_HANDLERS_GRADIENT_SLOTS_H_
#define SPARSEJAX_HANDLERS_GRADIENT_SLOTS_H_

#include <algorithm>
#include <memory>

#include "../plan/partition.h"
#include "../runtime/parallel.h"
#include "../runtime/scratch.h"
#include "types.h"

namespace sparsejax {

template <typename S>
class Slots {
 public:
  // `out` has nse elements: nnz entries, then padding. A slot has `entries` sums. Sum i is for element position[i] of
  // `out`, or for element i where `position` is null. Elements without a sum become zero. Sums are uninitialised until
  // Clear. `position` must live as long as this object.
  Slots(S* out, int64_t nse, int64_t nnz, int64_t slots, const int32_t* position, int64_t entries)
      : out_(out), slots_(slots), position_(position), entries_(entries) {
    partial_.reset(new Sum<S>[std::max<int64_t>(slots * entries, 1)]);
    std::fill(out + (entries < nnz ? 0 : nnz), out + nse, S{});
  }

  Sum<S>* slot(int64_t s) const { return partial_.get() + s * entries_; }
  // Sets the sums of some entries of a slot to zero. The task that adds to them first calls it, so that they are in
  // the cache of its core.
  void Clear(int64_t s, Range entries) const { std::fill(slot(s) + entries.begin, slot(s) + entries.end, Sum<S>(0)); }

  // After all tasks: each chunk adds up the slots of some entries, converts the sums and stores them in `out`.
  int64_t chunks() const { return CeilDiv(entries_, kEntriesPerChunk); }
  void Finish(int64_t chunk) const {
    const int64_t begin = chunk * kEntriesPerChunk, n = std::min(kEntriesPerChunk, entries_ - begin);
    Sum<S>* sums = partial_.get() + begin;
    Element<S>::Sums().add_slots(sums, entries_, slots_, n);
    const auto store = Element<S>::Storage().store_rows;
    if (position_ == nullptr) return store(sums, 1, n, n, out_ + begin, n);
    if constexpr (kNative<S>) {
      Scatter(sums, position_ + begin, n);
    } else {
      S* stored = Scratch::Local(Scratch::kOutput).Get<S>(n);
      store(sums, 1, n, n, stored, n);
      Scatter(stored, position_ + begin, n);
    }
  }

 private:
  // Lines are prefetched because stores that miss the cache are not overlapped by the processor.
  void Scatter(const S* from, const int32_t* position, int64_t n) const {
    constexpr int64_t kAhead = 64;
    for (int64_t i = 0; i < n; ++i) {
      __builtin_prefetch(out_ + position[std::min(i + kAhead, n - 1)], 1);
      out_[position[i]] = from[i];
    }
  }

  S* out_;
  int64_t slots_;
  const int32_t* position_;
  int64_t entries_;
  std::shared_ptr<Sum<S>[]> partial_;
};

// The chunks of a job that runs `before` chunks of preparation, the tasks, and then Slots::Finish.
template <typename S>
Chunks GradientChunks(int64_t before, const SlotTasks& tasks, const Slots<S>& sums) {
  return {.before = before, .run = tasks.tasks(), .after = sums.chunks(), .unit = tasks.unit(), .step = tasks.parts};
}

}  // namespace sparsejax

#endif  // SPARSEJAX_HANDLERS_GRADIENT_SLOTS_H_
