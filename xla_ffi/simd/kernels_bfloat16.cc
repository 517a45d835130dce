// The table of an instruction set that differs from another one, its base, by instructions for bfloat16: the products
// (on x86-64 those of attention too) are compiled with them, everything else is that of the base. This file is compiled with
// -DSPARSEJAX_ISA_NAMESPACE=<name> -DSPARSEJAX_ISA_BASE=<name of the base>. As in kernels.cc, no symbol but GetTable is
// visible.
#include "table.h"

#if defined(__x86_64__)
#include <immintrin.h>
#else
#include <arm_neon.h>
#endif

namespace sparsejax {
namespace {

#include "vec.h"
//
#include "storage.inc.h"
//
#include "packed.inc.h"
//
#include "spmm.inc.h"
//
#include "sddmm.inc.h"
//
#include "backward.inc.h"
//
#include "shared_rows.inc.h"
//
#include "small_batch.inc.h"
//
#include "product_kernels.inc.h"
//
#if defined(__AVX512BF16__)
#include "attention_pairs.inc.h"
#endif

}  // namespace

namespace SPARSEJAX_ISA_BASE {
const KernelTable& GetTable();
}

namespace SPARSEJAX_ISA_NAMESPACE {

const KernelTable& GetTable() {
  static const KernelTable table = [] {
    KernelTable t = SPARSEJAX_ISA_BASE::GetTable();
    t.isa = SPARSEJAX_STRING(SPARSEJAX_ISA_NAMESPACE);
    t.bf16 = MakeProductKernels<bfloat16>();
#if defined(__AVX512BF16__)
    t.attention_bf16.product = ProductOfPairs;
#endif
    return t;
  }();
  return table;
}

}  // namespace SPARSEJAX_ISA_NAMESPACE
}  // namespace sparsejax
