// Plans of earlier calls, looked up by the contents of the pattern.
//
// A training run computes the same products with the same patterns thousands of times, and a plan is made on one thread
// while the others wait. The key of a plan is numbers and arrays. Arrays are compared with a copy and never by address,
// because the memory may have other contents by then.
#ifndef SPARSEJAX_RUNTIME_PLAN_CACHE_H_
#define SPARSEJAX_RUNTIME_PLAN_CACHE_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace sparsejax {

// All that a plan depends on. The arrays belong to the caller.
struct PlanKey {
  struct Array {
    const int32_t* data;
    int64_t size;
  };
  std::vector<int64_t> numbers;
  std::array<Array, 3> arrays;

  int64_t bytes() const {
    int64_t elements = 0;
    for (const Array& array : arrays) elements += array.size;
    return elements * static_cast<int64_t>(sizeof(int32_t));
  }
};

// All members may be called from several threads at once. `Plan` has a member `int64_t bytes() const`.
template <typename Plan>
class PlanCache {
 public:
  // The plan of this key, or null.
  std::shared_ptr<const Plan> Find(const PlanKey& key) {
    const int64_t now = ++calls_;
    for (const auto& entry : WithNumbers(key)) {
      if (!entry->HasArrays(key)) continue;
      entry->last_used.store(now);
      return entry->plan;
    }
    return nullptr;
  }

  // Removes the plans that no recent call has used, then stores this one if there is room. Plans in use are not removed
  // for a new one: if they do not all fit, each would otherwise be removed before its next use.
  void Keep(const PlanKey& key, std::shared_ptr<const Plan> plan) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto stale = [&](const std::shared_ptr<Entry>& e) { return calls_.load() - e->last_used.load() > kRecent; };
    entries_.erase(std::remove_if(entries_.begin(), entries_.end(), stale), entries_.end());
    int64_t bytes = key.bytes() + plan->bytes();
    for (const auto& e : entries_) {
      if (e->numbers == key.numbers && e->HasArrays(key)) return;  // stored by another thread in the meantime
      bytes += e->bytes;
    }
    if (bytes <= kMostBytes) entries_.push_back(std::make_shared<Entry>(key, std::move(plan), calls_.load()));
  }

 private:
  static constexpr int64_t kMostBytes = int64_t{256} << 20;
  static constexpr int64_t kRecent = 1024;  // calls; a few training steps of a deep network

  struct Entry {
    Entry(const PlanKey& key, std::shared_ptr<const Plan> p, int64_t now)
        : numbers(key.numbers), bytes(key.bytes() + p->bytes()), plan(std::move(p)), last_used(now) {
      for (size_t i = 0; i < arrays.size(); ++i)
        arrays[i].assign(key.arrays[i].data, key.arrays[i].data + key.arrays[i].size);
    }

    bool HasArrays(const PlanKey& key) const {
      for (size_t i = 0; i < arrays.size(); ++i) {
        const auto size = static_cast<int64_t>(arrays[i].size());
        if (size != key.arrays[i].size) return false;
        if (size > 0 && std::memcmp(arrays[i].data(), key.arrays[i].data, size * sizeof(int32_t)) != 0) return false;
      }
      return true;
    }

    const std::vector<int64_t> numbers;
    const int64_t bytes;
    std::array<std::vector<int32_t>, 3> arrays;
    const std::shared_ptr<const Plan> plan;
    std::atomic<int64_t> last_used;
  };

  // The entries with the key's numbers. Their arrays are compared after the lock is released, because they are long,
  // and several devices may call at the same time.
  std::vector<std::shared_ptr<Entry>> WithNumbers(const PlanKey& key) {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<std::shared_ptr<Entry>> matches;
    for (const auto& entry : entries_)
      if (entry->numbers == key.numbers) matches.push_back(entry);
    return matches;
  }

  std::mutex mutex_;
  std::vector<std::shared_ptr<Entry>> entries_;
  std::atomic<int64_t> calls_{0};
};

}  // namespace sparsejax

#endif  // SPARSEJAX_RUNTIME_PLAN_CACHE_H_
