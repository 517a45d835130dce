#include "build.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>

namespace sparsejax {

PatternArrays BuildPattern(const bool* mask, int64_t columns, int64_t rows, int64_t nse) {
  constexpr int64_t kMost = INT32_MAX;
  if (nse < 0 || nse > kMost || columns > kMost || rows > kMost)
    throw std::invalid_argument("build_pattern: a size is out of range; expected at most 2**31 - 1.");
  if (std::count(mask, mask + columns * rows, true) > nse)
    throw std::invalid_argument("build_pattern: mask has more entries than nse; expected at most nse.");
  PatternArrays p;
  p.indptr.assign(rows + 1, 0);
  p.indptr_t.assign(columns + 1, 0);
  p.indices.assign(nse, 0);
  p.indices_t.assign(nse, 0);
  p.perm_t.resize(nse);
  std::iota(p.perm_t.begin(), p.perm_t.end(), 0);  // padding is mapped to itself

  for (int64_t c = 0; c < columns; ++c)
    for (int64_t r = 0; r < rows; ++r) p.indptr[r + 1] += mask[c * rows + r];
  for (int64_t r = 0; r < rows; ++r) p.indptr[r + 1] += p.indptr[r];

  std::vector<int32_t> next(p.indptr.begin(), p.indptr.end() - 1);
  int32_t t = 0;
  for (int64_t c = 0; c < columns; ++c) {
    for (int64_t r = 0; r < rows; ++r) {
      if (!mask[c * rows + r]) continue;
      p.indices[next[r]] = static_cast<int32_t>(c);
      p.indices_t[t] = static_cast<int32_t>(r);
      p.perm_t[t] = next[r]++;
      ++t;
    }
    p.indptr_t[c + 1] = t;
  }
  return p;
}

}  // namespace sparsejax
