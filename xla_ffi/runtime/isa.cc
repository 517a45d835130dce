#include "isa.h"

#include <cstdlib>
#include <stdexcept>

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
#elif defined(__aarch64__)
namespace neon {
const KernelTable& GetTable();
}
#endif

namespace {

struct Level {
  const char* name;
  const KernelTable& (*table)();
  bool supported;
};

// Best first. __builtin_cpu_supports checks too that the operating system saves the registers.
std::vector<Level> Levels() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
  return {{"avx512", avx512::GetTable, avx512}, {"avx2", avx2::GetTable, avx2}, {"baseline", baseline::GetTable, true}};
#elif defined(__aarch64__)
  return {{"neon", neon::GetTable, true}, {"baseline", baseline::GetTable, true}};
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

}  // namespace sparsejax
