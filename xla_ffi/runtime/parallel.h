// Work sharing between the thread that calls a handler and those of XLA's pool.
//
// A handler may itself run on a pool thread, and every other one may be busy or run handlers too, so waiting for queued
// work can deadlock. The calling thread therefore does whatever nobody else has begun, and waits only for chunks that
// another thread has begun. These wait at most for one begun before them, so the first that is not done waits for
// nothing. A helper that comes late finds nothing to do; until then it holds the job, which has copied pointers and
// numbers only. The partition into `chunks` is the caller's; what is added up, and in which order, must not depend on it,
// so that results do not either.
#ifndef SPARSEJAX_RUNTIME_PARALLEL_H_
#define SPARSEJAX_RUNTIME_PARALLEL_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace sparsejax {

namespace ffi = xla::ffi;

inline ffi::Error OutOfMemory() {
  return ffi::Error(ffi::ErrorCode::kResourceExhausted, "sparsejax: out of memory for scratch.");
}

// How a job is cut, by stage: chunks of one begin when all of the one before are done. Those of `run` come in units of
// so many that one thread should do, in order; chunk i of a unit begins when chunk i - step of it is done.
struct Chunks {
  int64_t before, run, after;
  int64_t unit = 1, step = 1;
};

// A job has `void Before(int64_t chunk)`, `Run` and `After` for the chunks of its stages, on any thread and in any order
// that Chunks allows. They may throw std::bad_alloc.
template <typename Job>
class SharedJob {
 public:
  SharedJob(Job job, const Chunks& chunks, int64_t threads)
      : job_(std::move(job)),
        threads_(threads),
        unit_(chunks.unit),
        step_(chunks.step),
        shares_(new Share[kStages * threads]),
        is_done_(chunks.unit > chunks.step ? chunks.run : 0) {
    const int64_t counts[kStages] = {chunks.before, chunks.run, chunks.after};
    for (int stage = 0; stage < kStages; ++stage) {
      unfinished_in_[stage] = counts[stage];
      const int64_t unit = stage == kRun ? unit_ : 1, units = (counts[stage] + unit - 1) / unit;
      for (int64_t i = 0; i < threads; ++i) {
        Share& share = shares_[stage * threads + i];
        share.next = units * i / threads * unit;
        share.end = std::min(counts[stage], units * (i + 1) / threads * unit);
      }
    }
  }

  // Takes part in every stage, until nothing is left to begin.
  void Work() noexcept {
    const int64_t first = workers_.fetch_add(1);
    for (int stage = 0; stage < kStages; ++stage) {
      if (stage > 0) Await(stage - 1);
      Draw(stage, first);
    }
  }

  // Waits, after Work, for what helpers have begun; whether all of it went well.
  bool Finish() const noexcept {
    Await(kStages - 1);
    return !failed_.load();
  }

 private:
  static constexpr int kRun = 1, kStages = 3;

  // For the chunks of a stage, all begun.
  void Await(int stage) const noexcept {
    while (unfinished_in_[stage].load(std::memory_order_acquire) > 0) std::this_thread::yield();
  }

  // Draws chunks until none is left: first a thread's own share, in order, because neighbouring chunks may use what the
  // last has packed; then what is left of the others'.
  void Draw(int stage, int64_t first) noexcept {
    for (int64_t i = 0; i < threads_; ++i) {
      Share& share = shares_[stage * threads_ + (first + i) % threads_];
      for (int64_t chunk; (chunk = share.next.fetch_add(1)) < share.end;) {
        if (stage == kRun) AwaitStepBefore(chunk);
        RunChunk(stage, chunk);
        if (stage == kRun && !is_done_.empty()) is_done_[chunk].store(true, std::memory_order_release);
        unfinished_in_[stage].fetch_sub(1, std::memory_order_acq_rel);
      }
    }
  }

  // Another thread has begun it: the chunks of a share are drawn in order, and no share divides a unit.
  void AwaitStepBefore(int64_t chunk) const noexcept {
    if (is_done_.empty() || chunk % unit_ < step_) return;
    while (!is_done_[chunk - step_].load(std::memory_order_acquire)) std::this_thread::yield();
  }

  void RunChunk(int stage, int64_t chunk) noexcept {
    if (failed_.load()) return;
    try {
      stage == 0 ? job_.Before(chunk) : stage == kRun ? job_.Run(chunk) : job_.After(chunk);
    } catch (const std::exception&) {
      failed_.store(true);
    }
  }

  struct alignas(64) Share {
    std::atomic<int64_t> next;
    int64_t end;
  };
  Job job_;
  const int64_t threads_, unit_, step_;
  std::unique_ptr<Share[]> shares_;  // by stage, then by thread
  std::vector<std::atomic<bool>> is_done_;  // the chunks of `run`, where any waits for another
  std::atomic<int64_t> unfinished_in_[kStages];
  std::atomic<int64_t> workers_{0};
  std::atomic<bool> failed_{false};
};

// Work, in multiply-adds or elements, below which a hop to another thread (a few microseconds) costs more than it saves.
constexpr int64_t kInlineWork = 100'000;

template <typename Job>
ffi::Error RunJob(ffi::ThreadPool& pool, Job job, const Chunks& chunks, int64_t work) {
  const bool is_inline = work < kInlineWork || pool.num_threads() <= 1;
  const int64_t threads = is_inline ? 1 : std::clamp<int64_t>(pool.num_threads(), 1, std::max<int64_t>(chunks.run, 1));
  auto shared = std::make_shared<SharedJob<Job>>(std::move(job), chunks, threads);
  for (int64_t helper = 1; helper < threads; ++helper) pool.Schedule([shared] { shared->Work(); });
  shared->Work();
  return shared->Finish() ? ffi::Error::Success() : OutOfMemory();
}

// A job of one stage.
template <typename Job>
struct OneStage {
  Job job;
  void Before(int64_t) const {}
  void Run(int64_t chunk) const { job.Run(chunk); }
  void After(int64_t) const {}
};

template <typename Job>
ffi::Error RunJob(ffi::ThreadPool& pool, Job job, int64_t chunks, int64_t work) {
  return RunJob(pool, OneStage<Job>{std::move(job)}, {0, chunks, 0}, work);
}

}  // namespace sparsejax

#endif  // SPARSEJAX_RUNTIME_PARALLEL_H_
