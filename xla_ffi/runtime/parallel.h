// Shares work between the thread that calls a handler and the threads of XLA's pool.
//
// A handler may itself run on a thread of the pool, and all other threads may be busy or run handlers too, so waiting
// for queued work could deadlock. Therefore the calling thread runs every chunk that no other thread has begun, and
// waits only for chunks that another thread has begun. Such a chunk waits at most for one that was begun before it, so
// the first unfinished chunk waits for nothing. A helper thread that starts late has nothing to do. Until then it keeps
// the job alive, which consists of copied pointers and numbers. The caller chooses the chunks; the order in which
// numbers are added up must not depend on them, so that results do not either.
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

// The number of chunks of a job in each of its three stages. A stage begins when the stage before it is done. The
// chunks of `run` are grouped into units of `unit` chunks, which one thread should run, in order: chunk i of a unit
// begins when its chunk i - step is done.
struct Chunks {
  int64_t before, run, after;
  int64_t unit = 1, step = 1;
};

// A job has the members `void Before(int64_t chunk)`, `Run` and `After`, one per stage. They are called on any thread
// and in any order that Chunks allows, and may throw std::bad_alloc.
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

  // Runs chunks of every stage, until no chunk is left that no thread has begun.
  void Work() noexcept {
    const int64_t first = workers_.fetch_add(1);
    for (int stage = 0; stage < kStages; ++stage) {
      if (stage > 0) Await(stage - 1);
      Draw(stage, first);
    }
  }

  // Called after Work: waits for the chunks that helpers have begun. Returns whether none has failed.
  bool Finish() const noexcept {
    Await(kStages - 1);
    return !failed_.load();
  }

 private:
  static constexpr int kRun = 1, kStages = 3;

  // Waits for the chunks of a stage, all of which have been begun.
  void Await(int stage) const noexcept {
    while (unfinished_in_[stage].load(std::memory_order_acquire) > 0) std::this_thread::yield();
  }

  // Runs chunks until none is left: first this thread's share, in order, because a chunk may use what the chunk before
  // it has packed; then chunks left in the shares of other threads.
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

  // Waits for the chunk that `chunk` depends on. It has been begun, because the chunks of a share are begun in order
  // and the chunks of a unit are in one share.
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
  std::unique_ptr<Share[]> shares_;         // by stage, then by thread
  std::vector<std::atomic<bool>> is_done_;  // by chunk of `run`; empty if no chunk depends on another
  std::atomic<int64_t> unfinished_in_[kStages];
  std::atomic<int64_t> workers_{0};
  std::atomic<bool> failed_{false};
};

// Amount of work, in multiply-adds or elements, below which using another thread (a few microseconds) costs more than
// it saves.
constexpr int64_t kInlineWork = 100'000;

// Runs the job on this thread and, if `work` is large enough, on threads of the pool. Returns when it is done.
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
