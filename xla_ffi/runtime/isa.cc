#include "isa.h"

#include <cstdlib>
#include <stdexcept>

#if defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace sparsejax {

namespace baseline {
const KernelTable& GetTable();
}
#if defined(__x86_64__)
namespace avx2 {
const KernelTable& GetTable();
}
namespace avx512 {
const KernelTable& GetTable();
}
namespace avx512_bf16 {
const KernelTable& GetTable();
}
#elif defined(__aarch64__)
namespace neon {
const KernelTable& GetTable();
}
namespace neon_bf16 {
const KernelTable& GetTable();
}
#endif

namespace {

struct Level {
  const char* name;
  const KernelTable& (*table)();
  bool supported;
};

#if defined(__aarch64__)
// Whether the processor has FEAT_BF16.
bool HasBfloat16() {
#if defined(__APPLE__)
  int has = 0;
  size_t size = sizeof(has);
  return sysctlbyname("hw.optional.arm.FEAT_BF16", &has, &size, nullptr, 0) == 0 && has != 0;
#elif defined(__linux__)
  constexpr unsigned long kBf16 = 1ul << 14;  // HWCAP2_BF16, which older headers lack
  return (getauxval(AT_HWCAP2) & kBf16) != 0;
#else
  return false;
#endif
}
#endif

// Best first. __builtin_cpu_supports checks too that the operating system saves the registers.
std::vector<Level> Levels() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
  const Level pairs = {"avx512_bf16", avx512_bf16::GetTable, avx512 && __builtin_cpu_supports("avx512bf16")};
  std::vector<Level> levels = {
      {"avx512", avx512::GetTable, avx512}, {"avx2", avx2::GetTable, avx2}, {"baseline", baseline::GetTable, true}};
  // A product of pairs takes as long as a multiply-add on AMD's processors (Zen 4), and four times as long on Intel's
  // (Sapphire Rapids).
  levels.insert(levels.begin() + (__builtin_cpu_is("amd") ? 0 : 1), pairs);
  return levels;
#elif defined(__aarch64__)
  // neon_bf16 comes second because it has not been timed: bfdot may be slower than a multiply-add somewhere.
  return {{"neon", neon::GetTable, true},
          {"neon_bf16", neon_bf16::GetTable, HasBfloat16()},
          {"baseline", baseline::GetTable, true}};
#else
  return {{"baseline", baseline::GetTable, true}};
#endif
}

const KernelTable* selected = nullptr;  // set once, when the module is loaded

}  // namespace

std::vector<std::string> SupportedIsas() {
  std::vector<std::string> names;
  for (const Level& level : Levels())
    if (level.supported) names.push_back(level.name);
  return names;
}

void SelectTable() {
  const char* wanted = std::getenv("SPARSEJAX_ISA");
  const bool any = wanted == nullptr || *wanted == '\0';
  for (const Level& level : Levels()) {
    if (level.supported && (any || std::string(wanted) == level.name)) {
      selected = &level.table();
      return;
    }
  }
  std::string names;
  for (const std::string& name : SupportedIsas()) names += (names.empty() ? "" : ", ") + name;
  throw std::invalid_argument("sparsejax: SPARSEJAX_ISA has value '" + std::string(wanted) +
                              "'; expected one that this processor supports: " + names + ".");
}

const KernelTable& Table() { return *selected; }

bool HasSlowGathers() {
#if defined(__x86_64__)
  return __builtin_cpu_is("amd");
#else
  return false;
#endif
}

}  // namespace sparsejax
