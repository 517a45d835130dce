// Row programs of a convolution: for every output phase and every pass over the source's channels, which packed offset
// each entry of a row reads.
#ifndef SPARSEJAX_PLAN_CONV_PROGRAM_H_
#define SPARSEJAX_PLAN_CONV_PROGRAM_H_

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "../simd/table.h"
#include "conv_tiling.h"

namespace sparsejax {

struct ConvPattern {
  const int32_t* indptr;   // of the orientation in use
  const int32_t* indices;
  const int32_t* perm;     // transposed orientation only
  int64_t in_features, out_features, groups;
  int64_t in_per_group() const { return in_features / groups; }
  int64_t out_per_group() const { return out_features / groups; }
};

// The programs of a call, by phase, passes innermost. The entries of a program follow one another row by row, so that a
// kernel goes through offsets and values in order; every entry is in one program, or in none if it meets only padding.
struct ConvPrograms {
  int64_t rows;
  std::vector<int32_t> row_ptr;  // rows + 1 of each program, into the arrays below
  std::vector<int32_t> offset;
  std::vector<int32_t> id;       // position of each entry in data; empty where that is the pattern's own order

  int64_t entries() const { return static_cast<int64_t>(offset.size()); }
  RowProgram View(int64_t program) const {
    const int32_t* ptr = row_ptr.data() + program * (rows + 1);
    return {ptr, ptr + 1, offset.data(), 1};
  }
};

// Where the entries of a tap go: the program of its phase's first pass, or -1, and the tap's packed offset.
struct TapPlace {
  int64_t program, offset;
};

inline std::vector<TapPlace> TapPlaces(const ConvTiling& t) {
  std::vector<TapPlace> places;
  for (int64_t i = 0; i < t.y.taps(); ++i)
    for (int64_t j = 0; j < t.x.taps(); ++j) {
      TapPlace place{-1, 0};
      for (int64_t py = 0; py < t.y.phases(); ++py)
        for (int64_t px = 0; px < t.x.phases(); ++px) {
          const Tap &ty = t.y.tap(py, i), &tx = t.x.tap(px, j);
          if (ty.valid && tx.valid) place = {(py * t.x.phases() + px) * t.passes, t.TapOffset(ty, tx)};
        }
      places.push_back(place);
    }
  return places;
}

// Calls body(row, program, offset, position in data) for every entry, rows in order. Rows are output features; entry
// (tap, channel) of row r reads that tap of the channel in r's group.
template <typename Body>
void ForEachEntry(const ConvTiling& t, const ConvPattern& p, const Body& body) {
  const int64_t per_group = p.in_per_group();
  std::vector<int32_t> program, offset;  // by column of the kernel
  for (const TapPlace& tap : TapPlaces(t))
    for (int64_t channel = 0; channel < per_group; ++channel) {
      program.push_back(static_cast<int32_t>(tap.program < 0 ? -1 : tap.program + channel / t.pass_channels));
      offset.push_back(static_cast<int32_t>(tap.offset + channel * t.channel_stride));
    }
  for (int64_t r = 0; r < p.out_features; ++r) {
    const int64_t group_offset = r / p.out_per_group() * per_group * t.channel_stride;
    for (int32_t e = p.indptr[r]; e < p.indptr[r + 1]; ++e) {
      const int32_t column = p.indices[e];
      if (program[column] >= 0) body(r, program[column], static_cast<int32_t>(group_offset + offset[column]), e);
    }
  }
}

// The same for the transposed pattern: rows are input features; entry (tap, output feature) of a row reads the cotangent
// of that feature.
template <typename Body>
void ForEachTransposedEntry(const ConvTiling& t, const ConvPattern& p, const Body& body) {
  const int64_t per_group = p.in_per_group(), outs = p.out_per_group();
  const std::vector<TapPlace> taps = TapPlaces(t);
  std::vector<int32_t> pass;
  for (int64_t f = 0; f < p.out_features; ++f) pass.push_back(static_cast<int32_t>(f / t.pass_channels));
  for (int64_t row = 0; row < p.in_features; ++row) {
    const int64_t group = row / per_group, channel = row % per_group;
    for (size_t tap = 0; tap < taps.size(); ++tap) {
      if (taps[tap].program < 0) continue;
      const int64_t column = static_cast<int64_t>(tap) * per_group + channel;
      const int32_t* begin = p.indices + p.indptr[column];
      const int32_t* end = p.indices + p.indptr[column + 1];
      if (p.groups > 1) {
        begin = std::lower_bound(begin, end, static_cast<int32_t>(group * outs));
        end = std::lower_bound(begin, end, static_cast<int32_t>((group + 1) * outs));
      }
      for (const int32_t* e = begin; e < end; ++e)
        body(row, taps[tap].program + pass[*e], static_cast<int32_t>(*e * t.channel_stride + taps[tap].offset),
             p.perm[e - p.indices]);
    }
  }
}

// `rows`: features of the destination.
inline ConvPrograms Programs(const ConvTiling& t, const ConvPattern& p, int64_t rows) {
  const int64_t count = t.y.phases() * t.x.phases() * t.passes;
  ConvPrograms out{rows, std::vector<int32_t>(count * (rows + 1)), {}, {}};
  const auto for_each = [&](const auto& body) {
    p.perm == nullptr ? ForEachEntry(t, p, body) : ForEachTransposedEntry(t, p, body);
  };
  for_each([&](int64_t row, int64_t program, int32_t, int32_t) { ++out.row_ptr[program * (rows + 1) + row + 1]; });
  // A program begins where the one before ends: the sum runs through, and row 0's place counts nothing.
  std::partial_sum(out.row_ptr.begin(), out.row_ptr.end(), out.row_ptr.begin());
  const int32_t entries = out.row_ptr.back();
  std::vector<int32_t> next;
  for (int64_t program = 0; program < count; ++program) next.push_back(out.row_ptr[program * (rows + 1)]);
  out.offset.resize(entries);
  if (p.perm == nullptr && count == 1 && entries == p.indptr[rows]) {
    for_each([&](int64_t, int64_t, int32_t offset, int32_t e) { out.offset[e] = offset; });
    return out;
  }
  out.id.resize(entries + 1);  // never empty
  for_each([&](int64_t, int64_t program, int32_t offset, int32_t id) {
    const int32_t at = next[program]++;
    out.offset[at] = offset;
    out.id[at] = id;
  });
  return out;
}

}  // namespace sparsejax

#endif  // SPARSEJAX_PLAN_CONV_PROGRAM_H_
