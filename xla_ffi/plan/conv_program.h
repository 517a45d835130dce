// Row programs of a convolution: for every output phase, which packed offset each entry of a row reads.
#ifndef SPARSEJAX_PLAN_CONV_PROGRAM_H_
#define SPARSEJAX_PLAN_CONV_PROGRAM_H_

#include <algorithm>
#include <cstdint>
#include <utility>
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

// The programs of one phase, one per pass over the source's channels, filled row by row.
class ProgramBuilder {
 public:
  // `reserve`: entries in all.
  ProgramBuilder(const ConvTiling& t, int64_t rows, int64_t reserve) : t_(t), programs_(t.passes) {
    for (ConvProgram& p : programs_) {
      p.row_ptr.reserve(rows + 1);
      p.row_ptr.push_back(0);
      p.offset.reserve(reserve / t.passes);
      p.id.reserve(reserve / t.passes + 1);
    }
  }

  // The entries that follow read this tap; their channels ascend.
  void BeginTap(int64_t offset) {
    tap_ = offset;
    pass_ = 0;
    pass_end_ = t_.pass_channels;
  }
  void Add(int64_t channel, int32_t id) {
    for (; channel >= pass_end_; pass_end_ += t_.pass_channels) ++pass_;
    programs_[pass_].offset.push_back(static_cast<int32_t>(channel * t_.channel_stride + tap_));
    programs_[pass_].id.push_back(id);
  }
  void EndRow() {
    for (ConvProgram& p : programs_) p.row_ptr.push_back(static_cast<int32_t>(p.offset.size()));
  }

  std::vector<ConvProgram> Take() {
    for (ConvProgram& p : programs_) p.id.push_back(0);  // never empty: a null id means "entry e is data[e]"
    return std::move(programs_);
  }

 private:
  const ConvTiling& t_;
  std::vector<ConvProgram> programs_;
  int64_t tap_ = 0, pass_ = 0, pass_end_ = 0;
};

// Rows are output features; entry (tap, channel) of row r reads that tap of the channel in r's group.
inline std::vector<ConvProgram> ForwardProgram(const ConvTiling& t, const ConvPattern& p,
                                               const std::vector<int64_t>& taps) {
  ProgramBuilder builder(t, p.out_features, p.indptr[p.out_features]);
  const int64_t per_group = p.in_per_group();
  for (int64_t r = 0; r < p.out_features; ++r) {
    const int64_t first_channel = r / p.out_per_group() * per_group;
    int64_t tap = -1;
    for (int32_t e = p.indptr[r]; e < p.indptr[r + 1]; ++e) {
      // Sorted entries stay in a tap for a while; a division only at its end.
      if (tap < 0 || static_cast<uint64_t>(p.indices[e] - tap * per_group) >= static_cast<uint64_t>(per_group)) {
        tap = p.indices[e] / per_group;
        builder.BeginTap(taps[tap]);
      }
      if (taps[tap] >= 0) builder.Add(first_channel + p.indices[e] - tap * per_group, e);
    }
    builder.EndRow();
  }
  return builder.Take();
}

// The same for one pass and windows whose every tap counts: entries are the pattern's own, in its order.
inline ConvProgram PlainProgram(const ConvTiling& t, const ConvPattern& p, const std::vector<int64_t>& taps) {
  ConvProgram out;
  out.borrowed_row_ptr = p.indptr;
  out.offset.reserve(p.indptr[p.out_features]);
  const int64_t per_group = p.in_per_group();
  for (int64_t r = 0; r < p.out_features; ++r) {
    const int64_t first_channel = r / p.out_per_group() * per_group;
    int64_t tap = 0;
    for (int32_t e = p.indptr[r]; e < p.indptr[r + 1]; ++e) {
      if (static_cast<uint64_t>(p.indices[e] - tap * per_group) >= static_cast<uint64_t>(per_group))
        tap = p.indices[e] / per_group;
      const int64_t channel = first_channel + p.indices[e] - tap * per_group;
      out.offset.push_back(static_cast<int32_t>(channel * t.channel_stride + taps[tap]));
    }
  }
  return out;
}

// Rows are input features; entry (tap, output feature) of a row reads the cotangent of that feature.
inline std::vector<ConvProgram> TransposedProgram(const ConvTiling& t, const ConvPattern& p,
                                                  const std::vector<int64_t>& taps) {
  const int64_t per_group = p.in_per_group(), outs = p.out_per_group();
  ProgramBuilder builder(t, p.in_features, p.indptr[static_cast<int64_t>(taps.size()) * per_group]);
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
      builder.BeginTap(taps[tap]);
      for (const int32_t* e = begin; e < end; ++e) builder.Add(*e, p.perm[e - p.indices]);
    }
    builder.EndRow();
  }
  return builder.Take();
}

// Programs by phase, passes innermost.
inline std::vector<ConvProgram> Programs(const ConvTiling& t, const ConvPattern& p) {
  std::vector<ConvProgram> programs;
  for (int64_t py = 0; py < t.y.phases(); ++py)
    for (int64_t px = 0; px < t.x.phases(); ++px) {
      const std::vector<int64_t> taps = TapOffsets(t, py, px);
      const bool all = std::find(taps.begin(), taps.end(), -1) == taps.end();
      if (p.perm == nullptr && t.passes == 1 && all) {
        programs.push_back(PlainProgram(t, p, taps));
        continue;
      }
      for (ConvProgram& program : p.perm == nullptr ? ForwardProgram(t, p, taps) : TransposedProgram(t, p, taps))
        programs.push_back(std::move(program));
    }
  return programs;
}

}  // namespace sparsejax

#endif  // SPARSEJAX_PLAN_CONV_PROGRAM_H_
