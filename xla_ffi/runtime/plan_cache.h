// Plans of earlier calls, looked up by the contents of the pattern.
//
// A training run computes the same products with the same patterns thousands of times, and a plan is made on one thread
// while the others wait. The key of a plan is numbers and the digests of arrays. Arrays are never known by their
// address, because the memory may have other contents by then.
#ifndef SPARSEJAX_RUNTIME_PLAN_CACHE_H_
#define SPARSEJAX_RUNTIME_PLAN_CACHE_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "digest.h"

namespace sparsejax {

// All that a plan depends on.
class PlanKey {
 public:
  explicit PlanKey(std::vector<int64_t> numbers = {}) : numbers_(std::move(numbers)) {}

  void Add(const int32_t* values, int64_t size) {
    const auto digest = DigestOf(values, size);
    numbers_.insert(numbers_.end(), {size, digest[0], digest[1]});
  }

  bool operator==(const PlanKey& other) const { return numbers_ == other.numbers_; }

 private:
  std::vector<int64_t> numbers_;
};

// All members may be called from several threads at once. `Plan` has a member `int64_t bytes() const`.
template <typename Plan>
class PlanCache {
 public:
  // The plan of this key, or null.
  std::shared_ptr<const Plan> Find(const PlanKey& key) {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++calls_;
    Entry* const entry = WithKey(key);
    if (entry == nullptr) return nullptr;
    entry->last_used = calls_;
    return entry->plan;
  }

  // Removes the plans that no recent call has used, then stores this one if there is room. Plans in use are not removed
  // for a new one: if they do not all fit, each would otherwise be removed before its next use.
  void Keep(const PlanKey& key, std::shared_ptr<const Plan> plan) {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::erase_if(entries_, [&](const Entry& e) { return calls_ - e.last_used > kRecent; });
    if (WithKey(key) != nullptr) return;  // stored by another thread in the meantime
    if (Sum() + plan->bytes() <= kMostBytes) entries_.push_back({key, std::move(plan), calls_});
  }

  // Of all plans.
  int64_t bytes() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return Sum();
  }

 private:
  static constexpr int64_t kMostBytes = int64_t{256} << 20;
  static constexpr int64_t kRecent = 1024;  // calls; a few training steps of a deep network

  struct Entry {
    PlanKey key;
    std::shared_ptr<const Plan> plan;
    int64_t last_used;
  };

  Entry* WithKey(const PlanKey& key) {
    const auto at = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.key == key; });
    return at == entries_.end() ? nullptr : &*at;
  }

  int64_t Sum() const {
    int64_t sum = 0;
    for (const Entry& e : entries_) sum += e.plan->bytes();
    return sum;
  }

  std::mutex mutex_;
  std::vector<Entry> entries_;
  int64_t calls_ = 0;
};

}  // namespace sparsejax

#endif  // SPARSEJAX_RUNTIME_PLAN_CACHE_H_
