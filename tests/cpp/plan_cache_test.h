// Tests which plans a plan cache returns, keeps and removes.
#ifndef SPARSEJAX_TESTS_CPP_PLAN_CACHE_TEST_H_
#define SPARSEJAX_TESTS_CPP_PLAN_CACHE_TEST_H_

#include <memory>
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
    return PlanKey{{number}, {{{array.data(), static_cast<int64_t>(array.size())}, {nullptr, 0}, {nullptr, 0}}}};
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
  const std::vector<int32_t> moved = a;
  if (size_of(key(1, moved)) != 10) return "misses equal contents elsewhere";
  a[2] = 7;
  if (size_of(key(1, a)) != 0) return "finds a plan of what lay here before";

  constexpr int64_t kTooLarge = int64_t{1} << 40;
  keep(key(4, b), kTooLarge);
  if (size_of(key(4, b)) != 0 || size_of(key(1, b)) != 20) return "gives up plans in use for one that does not fit";
  for (int i = 0; i < 2000; ++i) size_of(key(1, b));
  keep(key(5, b), 50);
  if (size_of(key(2, moved)) != 0) return "keeps a plan that no recent call has used";
  if (size_of(key(1, b)) != 20 || size_of(key(5, b)) != 50) return "loses a plan in use";
  return "";
}

}  // namespace sparsejax::testing

#endif  // SPARSEJAX_TESTS_CPP_PLAN_CACHE_TEST_H_
