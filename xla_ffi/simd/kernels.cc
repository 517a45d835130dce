// All kernels for one instruction set. This file is compiled once per instruction set with
// -DSPARSEJAX_ISA_NAMESPACE=<name>. Every symbol except GetTable is in an anonymous namespace, so that the linker
// cannot choose a function compiled for a newer processor as the only copy for the whole library.
#include "table.h"

#if defined(__x86_64__)
#include <immintrin.h>
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
#include "transpose.inc.h"
//
#include "small_batch.inc.h"
//
#include "product_kernels.inc.h"
//
#include "pool.inc.h"
//
#include "norm.inc.h"
//
#include "attention.inc.h"
//
#include "indices.inc.h"
//
#include "digest.inc.h"
//
#include "probe.inc.h"

template <typename A>
constexpr AttentionKernels<A> MakeAttentionKernels() {
  return {
      .lanes = kTileVecs * static_cast<int>(kVectorBytes / sizeof(A)),
      .product = Product<A>,
      .softmax = Softmax<A>,
      .softmax_grad = SoftmaxGrad<A>,
      .scale_lanes = ScaleLanes<A>,
  };
}

template <typename S, typename A>
constexpr StorageKernels<S, A> MakeStorageKernels() {
  return {
      .pack_rows = PackRows<S, S>,
      .copy_rows = CopyRows<S, S>,
      .transpose = TransposeRows<S>,
      .load_rows = PackRows<S, A>,
      .store_rows = CopyRows<A, S>,
      .load_transposed = LoadTransposed<S, A>,
      .store_transposed = StoreTransposed<S, A>,
      .pack_pixels = PackPixels<S>,
      .sum = SumRun<S, A>,
      .dot = DotRun<S, A>,
      .add_rows = AddRows<S, A>,
      .sum_pool = SumPool<S, A>,
      .sum_unpool = SumUnpool<S, A>,
      .max_pool = MaxPool<S, A>,
      .max_take = MaxTake<S, A>,
      .max_put = MaxPut<S, A>,
      .moments = Moments<S, A>,
      .normalize = Normalize<S, A>,
      .norm_grad_sums = NormGradSums<S, A>,
      .norm_grad = NormGrad<S, A>,
      .moments_rows = Moments<S, A>,
      .normalize_rows = Normalize<S, A>,
      .norm_grad_sums_rows = NormGradSums<S, A>,
      .norm_grad_rows = NormGrad<S, A>,
  };
}

}  // namespace

namespace SPARSEJAX_ISA_NAMESPACE {

const KernelTable& GetTable() {
  static constexpr KernelTable table = {
      .isa = SPARSEJAX_STRING(SPARSEJAX_ISA_NAMESPACE),
      .f32 = MakeProductKernels<float>(),
      .f64 = MakeProductKernels<double>(),
      .bf16 = MakeProductKernels<bfloat16>(),
      .sums_f32 = {.add_slots = AddSlots<float>},
      .sums_f64 = {.add_slots = AddSlots<double>},
      .attention_f32 = MakeAttentionKernels<float>(),
      .attention_f64 = MakeAttentionKernels<double>(),
      .attention_bf16 = MakeAttentionKernels<float>(),
      .storage_f32 = MakeStorageKernels<float, float>(),
      .storage_f64 = MakeStorageKernels<double, double>(),
      .storage_bf16 = MakeStorageKernels<bfloat16, float>(),
      .all_below = AllBelow,
      .digest_block = DigestBlock,
      .probe = {.flops_per_iteration = 2 * kMaxVecs * static_cast<int>(kVectorBytes / sizeof(float)),
                .fma = ProbeFma,
                .read = ProbeRead},
  };
  return table;
}

}  // namespace SPARSEJAX_ISA_NAMESPACE
}  // namespace sparsejax
