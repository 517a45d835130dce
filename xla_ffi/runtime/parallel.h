// Work sharing over XLA's thread pool that never waits: the handler returns a future, the last task completes it.
//
// A handler may itself run on a pool thread, so waiting for queued work can deadlock. Tasks hold a shared job with
// copied pointers and numbers only; nothing of the call frame outlives the handler. The partition into `chunks` is
// the caller's; what is added up, and in which order, must not depend on it, so that results do not either.
#ifndef SPARSEJAX_RUNTIME_PARALLEL_H_
#define SPARSEJAX_RUNTIME_PARALLEL_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <utility>

#include "xla/ffi/api/ffi.h"

namespace sparsejax {

namespace ffi = xla::ffi;

inline ffi::Error OutOfMemory() {
  return ffi::Error(ffi::ErrorCode::kResourceExhausted, "sparsejax: out of memory for scratch.");
}

// A job has `void Run(int64_t chunk)` for each chunk, in any order and on any thread, and `void Finish()`, called once
// after all of them. Both may throw std::bad_alloc.
template <typename Job>
class SharedJob {
 public:
  SharedJob(Job job, int64_t chunks, int64_t threads, ffi::Promise promise)
      : job_(std::move(job)),
        threads_(threads),
        shares_(new Share[threads]),
        unfinished_(chunks),
        promise_(std::move(promise)) {
    for (int64_t i = 0; i < threads; ++i) {
      shares_[i].next = chunks * i / threads;
      shares_[i].end = chunks * (i + 1) / threads;
    }
  }

  // Draws chunks until none is left: first a thread's own share, in order, because neighbouring chunks may use what the
  // last has packed; then what is left of the others'. Whoever finishes the last one completes the promise.
  void Work() noexcept {
    const int64_t first = workers_.fetch_add(1);
    for (int64_t i = 0; i < threads_; ++i) {
      Share& share = shares_[(first + i) % threads_];
      for (int64_t chunk; (chunk = share.next.fetch_add(1)) < share.end;) {
        Guard([&] { job_.Run(chunk); });
        if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) Complete();
      }
    }
  }

  void Complete() noexcept {
    if (!failed_.load()) Guard([&] { job_.Finish(); });
    if (failed_.load()) {
      promise_.SetError(OutOfMemory());
    } else {
      promise_.SetAvailable();
    }
  }

 private:
  template <typename F>
  void Guard(const F& f) noexcept {
    try {
      f();
    } catch (const std::exception&) {
      failed_.store(true);
    }
  }

  struct alignas(64) Share {
    std::atomic<int64_t> next;
    int64_t end;
  };

  Job job_;
  const int64_t threads_;
  std::unique_ptr<Share[]> shares_;
  std::atomic<int64_t> workers_{0};
  std::atomic<int64_t> unfinished_;
  std::atomic<bool> failed_{false};
  ffi::Promise promise_;
};

// Work, in multiply-adds or elements, below which a hop to another thread (a few microseconds) costs more than it saves.
constexpr int64_t kInlineWork = 100'000;

template <typename Job>
ffi::Future RunJob(ffi::ThreadPool& pool, Job job, int64_t chunks, int64_t work) {
  ffi::Promise promise;
  ffi::Future future(promise);
  const bool is_inline = work < kInlineWork || pool.num_threads() <= 1;
  const int64_t threads = is_inline ? 1 : std::clamp<int64_t>(pool.num_threads(), 1, std::max<int64_t>(chunks, 1));
  auto shared = std::make_shared<SharedJob<Job>>(std::move(job), chunks, threads, std::move(promise));
  if (chunks == 0) {
    shared->Complete();
    return future;
  }
  if (threads == 1) {
    shared->Work();
    return future;
  }
  for (int64_t i = 0; i < threads; ++i) pool.Schedule([shared] { shared->Work(); });
  return future;
}

// Two jobs of one call, sharing its threads.
template <typename First, typename Second>
struct BothJobs {
  First first;
  int64_t first_chunks;
  Second second;

  void Run(int64_t chunk) const {
    chunk < first_chunks ? first.Run(chunk) : second.Run(chunk - first_chunks);
  }
  void Finish() const {
    first.Finish();
    second.Finish();
  }
};

// A future that is already an error.
inline ffi::Future Failed(ffi::Error error) {
  ffi::Promise promise;
  ffi::Future future(promise);
  promise.SetError(std::move(error));
  return future;
}

// A future that is already complete.
inline ffi::Future Done() {
  ffi::Promise promise;
  ffi::Future future(promise);
  promise.SetAvailable();
  return future;
}

}  // namespace sparsejax

#endif  // SPARSEJAX_RUNTIME_PARALLEL_H_
