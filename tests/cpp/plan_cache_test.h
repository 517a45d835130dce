// Tests which plans a plan cache returns, keeps and removes, and the digests by which it knows them.
#ifndef SPARSEJAX_TESTS_CPP_PLAN_CACHE_TEST_H_
#define SPARSEJAX_TESTS_CPP_PLAN_CACHE_TEST_H_

#include <algorithm>
#include <array>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "../../xla_ffi/runtime/plan_cache.h"

namespace sparsejax::testing {

struct SizedPlan {
  int64_t size;
  int64_t bytes() const { return size; }
};

// The first fault, or nothing.
inline std::string PlanCacheFault() {
  PlanCache<SizedPlan> cache;
  std::vector<int32_t> a = {0, 1, 2}, b = {0, 1, 3};
  const auto key = [](int64_t number, const std::vector<int32_t>& array) {
    PlanKey made({number});
    made.Add(array.data(), static_cast<int64_t>(array.size()));
    return made;
  };
  const auto size_of = [&](const PlanKey& k) {
    const auto plan = cache.Find(k);
    return plan == nullptr ? int64_t{0} : plan->size;
  };
  const auto keep = [&](const PlanKey& k, int64_t size) {
    cache.Keep(k, std::make_shared<const SizedPlan>(SizedPlan{size}));
  };

  keep(key(1, a), 10);
  keep(key(1, b), 20);
  keep(key(2, a), 30);
  keep(key(1, a), 40);
  if (size_of(key(1, a)) != 10 || size_of(key(1, b)) != 20 || size_of(key(2, a)) != 30) return "finds another plan";
  if (size_of(key(3, a)) != 0) return "finds a plan of another number";
  const std::vector<int32_t> moved = a, longer = {0, 1, 2, 0};
  if (size_of(key(1, moved)) != 10) return "misses equal contents elsewhere";
  if (size_of(key(1, longer)) != 0) return "finds a plan of a shorter array";
  a[2] = 7;
  if (size_of(key(1, a)) != 0) return "finds a plan of what lay here before";

  constexpr int64_t kTooLarge = int64_t{1} << 40;
  keep(key(4, b), kTooLarge);
  if (size_of(key(4, b)) != 0 || size_of(key(1, b)) != 20) return "gives up plans in use for one that does not fit";
  for (int i = 0; i < 2000; ++i) size_of(key(1, b));
  keep(key(5, b), 50);
  if (size_of(key(2, moved)) != 0) return "keeps a plan that no recent call has used";
  if (size_of(key(1, b)) != 20 || size_of(key(5, b)) != 50) return "loses a plan in use";
  if (cache.bytes() != 70) return "counts other bytes than those of its plans";
  return "";
}

// The first fault of the digests, or nothing.
inline std::string DigestFault() {
  constexpr int kHalf = kDigestBlock / 2;
  std::mt19937 random(1);
  std::vector<int32_t> block(kDigestBlock);
  std::vector<uint32_t> keys(2 * kDigestBlock);
  for (auto& x : block) x = static_cast<int32_t>(random());
  for (auto& x : keys) x = random();
  std::array<uint64_t, 2> sums{}, expected{};
  for (int s = 0; s < 2; ++s)
    for (int i = 0; i < kHalf; ++i) {
      const uint32_t* k = keys.data() + s * kDigestBlock;
      const uint64_t low = (static_cast<uint64_t>(block[i]) + k[i]) % (uint64_t{1} << 32);
      const uint64_t high = (static_cast<uint64_t>(block[i + kHalf]) + k[i + kHalf]) % (uint64_t{1} << 32);
      expected[s] += low * high;
    }
  Table().digest_block(block.data(), keys.data(), sums.data());
  if (sums != expected) return "is not NH";

  // One number changed, two exchanged, or two blocks exchanged.
  for (const int size : {1, 2, kDigestBlock - 1, kDigestBlock, 3 * kDigestBlock + 5}) {
    std::vector<int32_t> a(size);
    std::iota(a.begin(), a.end(), 0);
    std::set<std::array<int64_t, 2>> seen = {DigestOf(a.data(), size)};
    const auto is_new = [&] { return seen.insert(DigestOf(a.data(), size)).second; };
    if (is_new()) return "differs for equal arrays";
    for (int i = 0; i < size; ++i) {
      a[i] ^= 1 << 20;
      if (!is_new()) return "does not depend on number " + std::to_string(i) + " of " + std::to_string(size);
      a[i] ^= 1 << 20;
    }
    for (int i = 0; i + kHalf < size; ++i) {
      std::swap(a[i], a[i + kHalf]);
      if (!is_new()) return "does not depend on the order of numbers";
      std::swap(a[i], a[i + kHalf]);
    }
    if (size >= 2 * kDigestBlock) {
      std::rotate(a.begin(), a.begin() + kDigestBlock, a.begin() + 2 * kDigestBlock);
      if (!is_new()) return "does not depend on the order of blocks";
    }
  }
  return "";
}

}  // namespace sparsejax::testing

#endif  // SPARSEJAX_TESTS_CPP_PLAN_CACHE_TEST_H_
