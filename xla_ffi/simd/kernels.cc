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
#include "spmm.inc.h"
//
#include "sddmm.inc.h"
//
#include "backward.inc.h"
//
#include "storage.inc.h"
//
#include "transpose.inc.h"
//
#include "pool.inc.h"
//
#include "norm.inc.h"
//
#include "attention.inc.h"
//
#include "probe.inc.h"

template <typename T>
constexpr FloatKernels<T> MakeFloatKernels() {
  constexpr int kLanes = kVectorBytes / sizeof(T);
  constexpr int kHalf = kLanes / 2, kQuarter = kLanes >= 8 ? kLanes / 4 : 1;
  return {
      .lanes = kLanes,
      .max_vecs = kMaxVecs,
      .narrow_lanes = {kHalf, kQuarter, 1},
      .spmm = SpmmDispatch<T, kLanes, kMaxVecs>,
      .spmm_narrow = {SpmmDispatch<T, kHalf, 1>, SpmmDispatch<T, kQuarter, 1>, SpmmDispatch<T, 1, 1>},
      .sddmm = SddmmDispatch<T, kLanes, kMaxVecs>,
      .sddmm_narrow = {SddmmDispatch<T, kHalf, 1>, SddmmDispatch<T, kQuarter, 1>, SddmmDispatch<T, 1, 1>},
      .backward = BackwardDispatch<T, kLanes, kMaxVecs>,
      .add_slots = AddSlots<T>,
      .attention = {.lanes = kTileVecs * kLanes,
                    .product = Product<T>,
                    .softmax = Softmax<T>,
                    .softmax_grad = SoftmaxGrad<T>,
                    .scale_lanes = ScaleLanes<T>},
  };
}

template <typename S, typename A>
constexpr StorageKernels<S, A> MakeStorageKernels() {
  return {
      .load_rows = LoadRows<S, A>,
      .store_rows = StoreRows<S, A>,
      .load_transposed = LoadTransposed<S, A>,
      .store_transposed = StoreTransposed<S, A>,
      .pack_pixels = PackPixels<S, A>,
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
  };
}

#define SPARSEJAX_STRING2(x) #x
#define SPARSEJAX_STRING(x) SPARSEJAX_STRING2(x)

}  // namespace

namespace SPARSEJAX_ISA_NAMESPACE {

const KernelTable& GetTable() {
  static constexpr KernelTable table = {
      .isa = SPARSEJAX_STRING(SPARSEJAX_ISA_NAMESPACE),
      .f32 = MakeFloatKernels<float>(),
      .f64 = MakeFloatKernels<double>(),
      .storage_f32 = MakeStorageKernels<float, float>(),
      .storage_f64 = MakeStorageKernels<double, double>(),
      .storage_bf16 = MakeStorageKernels<bfloat16, float>(),
      .all_below = AllBelow,
      .probe = {.flops_per_iteration = 2 * kMaxVecs * static_cast<int>(kVectorBytes / sizeof(float)),
                .fma = ProbeFma,
                .read = ProbeRead},
  };
  return table;
}

}  // namespace SPARSEJAX_ISA_NAMESPACE
}  // namespace sparsejax
