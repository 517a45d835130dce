// What calls of a convolution with the same pattern and geometry share.
#ifndef SPARSEJAX_PLAN_CONV_PLAN_H_
#define SPARSEJAX_PLAN_CONV_PLAN_H_

#include <cstdint>
#include <utility>

#include "conv_program.h"
#include "conv_tiling.h"
#include "positions.h"

namespace sparsejax {

struct ConvPlan {
  ConvTiling tiling;
  ConvPrograms programs;
  int64_t shared;  // rows of a group with the same entries in every program

  // Whether a gradient can be scattered to the programs' positions: each sum has an element of its own among those of
  // the pattern's entries. Determined only for calls that do so.
  bool scatters_once = false;

  // `rows`: number of features of the destination. `nnz`: number of entries of the pattern. `scatters`: whether the
  // call scatters a gradient.
  ConvPlan(ConvTiling t, const ConvPattern& p, int64_t rows, int64_t nnz, bool scatters)
      : tiling(std::move(t)), programs(Programs(tiling, p, rows)), shared(programs.SharedRows()) {
    if (scatters) scatters_once = AreDistinct(programs.id.get(), programs.entries, nnz);
  }

  int64_t bytes() const { return tiling.bytes() + programs.bytes(); }
};

}  // namespace sparsejax

#endif  // SPARSEJAX_PLAN_CONV_PLAN_H_
