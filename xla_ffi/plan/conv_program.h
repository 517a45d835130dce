// Row programs of a convolution: for every output phase, which packed offset each entry of a row reads.
#ifndef SPARSEJAX_PLAN_CONV_PROGRAM_H_
#define SPARSEJAX_PLAN_CONV_PROGRAM_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../simd/table.h"
#include "conv_tiling.h"

namespace sparsejax {

// One phase. `row_ptr` and `id` are borrowed from the pattern where they are the pattern's own.
struct ConvProgram {
  const int32_t* borrowed_row_ptr = nullptr;
  std::vector<int32_t> row_ptr, offset, id;

  RowProgram View() const {
    const int32_t* ptr = borrowed_row_ptr ? borrowed_row_ptr : row_ptr.data();
    return {ptr, ptr + 1, offset.data(), id.empty() ? nullptr : id.data(), 1};
  }
};

struct ConvPattern {
  const int32_t* indptr;   // of the orientation in use
  const int32_t* indices;
  const int32_t* perm;     // transposed orientation only
  int64_t in_features, out_features, groups;
  int64_t in_per_group() const { return in_features / groups; }
  int64_t out_per_group() const { return out_features / groups; }
};

inline std::vector<int64_t> TapOffsets(const ConvTiling& t, int64_t phase_y, int64_t phase_x) {
  std::vector<int64_t> offsets;
  for (int64_t i = 0; i < t.y.taps(); ++i)
    for (int64_t j = 0; j < t.x.taps(); ++j) {
      const Tap &ty = t.y.tap(phase_y, i), &tx = t.x.tap(phase_x, j);
      offsets.push_back(ty.valid && tx.valid ? t.TapOffset(ty, tx) : -1);
    }
  return offsets;
}

// Rows are output features; entry (tap, channel) of row r reads that tap of the channel in r's group.
inline ConvProgram ForwardProgram(const ConvTiling& t, const ConvPattern& p, const std::vector<int64_t>& taps) {
  const bool all = std::find(taps.begin(), taps.end(), -1) == taps.end();
  const int64_t per_group = p.in_per_group();
  ConvProgram out;
  out.offset.reserve(p.indptr[p.out_features]);
  if (all) {
    out.borrowed_row_ptr = p.indptr;
  } else {
    out.row_ptr.push_back(0);
    out.id.reserve(p.indptr[p.out_features] + 1);
  }
  for (int64_t r = 0; r < p.out_features; ++r) {
    const int64_t first_channel = r / p.out_per_group() * per_group;
    int64_t tap = 0;
    for (int32_t e = p.indptr[r]; e < p.indptr[r + 1]; ++e) {
      // Sorted entries stay in a tap for a while; a division only at its end.
      if (static_cast<uint64_t>(p.indices[e] - tap * per_group) >= static_cast<uint64_t>(per_group))
        tap = p.indices[e] / per_group;
      if (taps[tap] < 0) continue;
      const int64_t channel = first_channel + p.indices[e] - tap * per_group;
      out.offset.push_back(static_cast<int32_t>(channel * t.channel_stride + taps[tap]));
      if (!all) out.id.push_back(e);
    }
    if (!all) out.row_ptr.push_back(static_cast<int32_t>(out.offset.size()));
  }
  if (!all) out.id.push_back(0);  // never empty: a null id means "entry e is data[e]"
  return out;
}

// Rows are input features; entry (tap, output feature) of a row reads the cotangent of that feature.
inline ConvProgram TransposedProgram(const ConvTiling& t, const ConvPattern& p, const std::vector<int64_t>& taps) {
  ConvProgram out;
  const int64_t per_group = p.in_per_group(), outs = p.out_per_group();
  const int64_t columns = static_cast<int64_t>(taps.size()) * per_group;
  out.row_ptr.reserve(p.in_features + 1);
  out.row_ptr.push_back(0);
  out.offset.reserve(p.indptr[columns]);
  out.id.reserve(p.indptr[columns] + 1);
  for (int64_t row = 0; row < p.in_features; ++row) {
    const int64_t group = row / per_group, channel = row % per_group;
    for (size_t tap = 0; tap < taps.size(); ++tap) {
      if (taps[tap] < 0) continue;
      const int64_t column = static_cast<int64_t>(tap) * per_group + channel;
      const int32_t* begin = p.indices + p.indptr[column];
      const int32_t* end = p.indices + p.indptr[column + 1];
      if (p.groups > 1) {
        begin = std::lower_bound(begin, end, static_cast<int32_t>(group * outs));
        end = std::lower_bound(begin, end, static_cast<int32_t>((group + 1) * outs));
      }
      for (const int32_t* e = begin; e < end; ++e) {
        out.offset.push_back(static_cast<int32_t>(*e * t.channel_stride + taps[tap]));
        out.id.push_back(p.perm[e - p.indices]);
      }
    }
    out.row_ptr.push_back(static_cast<int32_t>(out.offset.size()));
  }
  out.id.push_back(0);  // never empty, as above
  return out;
}

// One program per phase, rows of phases outermost.
template <typename Build>
std::vector<ConvProgram> Programs(const ConvTiling& t, const ConvPattern& p, const Build& build) {
  std::vector<ConvProgram> programs;
  for (int64_t py = 0; py < t.y.phases(); ++py)
    for (int64_t px = 0; px < t.x.phases(); ++px) programs.push_back(build(t, p, TapOffsets(t, py, px)));
  return programs;
}

}  // namespace sparsejax

#endif  // SPARSEJAX_PLAN_CONV_PROGRAM_H_
