"""Every public name of 0.1.0, by module: what the release after it must still answer to."""

NAMES = {
    "sparsejax": """
        SparsityPattern conv cpu_info densify sparsify spmm
    """.split(),
    "sparsejax.analysis.bias": """
        BiasAmplification BiasRisk FlipCoverage Flips GroupRates MeanAmplification Measured OneVsRest
        Overridden REASONS RecallShift ReliabilityTable Report SusceptibleSamples Table Taxicab
        ZhaoAmplification accuracy auc bias_amplification bias_amplification_directional
        bias_amplification_zhao bias_risk calibrate_thresholds cie_taxicab class_recall_shift compare
        expected_calibration_error false_negative_rate false_positive_rate flip_coverage flips group_rates
        hard_predictions interdependence marker_bias_amplification mean_absolute_correlation
        mean_amplification modal_labels one_vs_rest override_predictions pie precision_at_recall
        predicted_positive_rate rare_value_ratio rate_gaps reliability_table susceptible_samples tcb
        to_aif360_groups uncertainty uncertainty_score
    """.split(),
    "sparsejax.analysis.bias.html": """
        fragment page
    """.split(),
    "sparsejax.analysis.multisource": """
        ADVERSARIES AdversarialLearner BoostedTrees CLASSIFIERS Dataset Ensemble FILES FLEA FLEAClassifier
        HierarchicalTERM KonstantinovFilter LEARNERS METHODS METRICS PAPER_LABELS PlainLearner
        PostprocessedLearner RegularisedLearner ResampledLearner RobustLearner SourceFilter SourceWarning
        TrainingSet agreement blocks census choose_sources compare encode_census encode_table evaluate
        fetch_dataset learners_of load_dataset make_learner make_method manipulate plot_bars plot_scores
        quantiles reweigh run_study select summarise table worst_case
    """.split(),
    "sparsejax.analysis.transfer": """
        Backbone CATEGORIES C_GRID EpochCost Features FinetuneResult LinearCost ProbeResult
        RepeatedRunsWarning Report SGDConfig StudySettings accuracy aggregate aggregate_categories cells
        check_results compare_methods compare_to_dense difficulty_correlation extract_features finetune holm
        linear_probe mean_per_class_accuracy per_class_accuracy plot_datasets plot_difficulty plot_ranks
        plot_relative_error plot_tasks plot_upstream predict rank_methods read_results recalibrate_batch_norm
        regime_agreement relative_error_increase report run_transfer seed_noise task_difficulty
        time_linear_epoch train_linear_online upstream_correlation wilcoxon_exact win_tie_loss
    """.split(),
    "sparsejax.data": """
        ArrayImages BENCHMARKS Benchmark CelebA Dataset ImageTask Images Pictures Reading batches benchmark
        corner_square digits grayscale idx idx_dataset image_folder load load_task marked_samples
        read_celeba_attributes
    """.split(),
    "sparsejax.kernels": """
        add_bias avg_pool batch_norm channel_dot channel_scale channel_shift channel_sum conv export_checks
        is_supported max_pool sddmm spmm spmm_t
    """.split(),
    "sparsejax.models": """
        BasicBlock Bottleneck ConvNet LoadReport MLP MODEL_NAMES MobileNetV1 ResNet SeparableConv WideBlock
        WideResNet build find_head load_torch_state_dict mobilenet_v1 new_classifier resnet18 resnet50
        wide_resnet with_new_head without_head
    """.split(),
    "sparsejax.nn": """
        BatchNorm Pattern SparseConv SparseLinear avg_pool carry_optimizer densify max_pool norm_act
        pattern_masks sparsify
    """.split(),
    "sparsejax.nn.linen": """
        SparseConv SparseDense
    """.split(),
    "sparsejax.pattern": """
        SparsityPattern
    """.split(),
    "sparsejax.pruning": """
        Capacity Change CompressedState Every Filter Grid Indices LayerShape Method OtherOps Overlap
        PackedMask Phase PhaseList PrunedState Report ReportRow STR STRParams Scope ShortPhasesWarning
        Structure Ticket View acdc acdc_phases across alternation_cost block channel check compress dead_units
        decompress dense_partner er erk every expand external first_conv fixed forward_flops forward_params
        get_mask global_count granet hard_threshold init kernels last_dense layer_shapes lottery_tickets
        magnitude mask_from_scores mask_from_zeros mest metrics movement n_of_m one_shot overlap path
        per_layer project prune pruned random_ recalibrate report rescale_by_density rigl row_balanced
        saliency schedules scores select set_ shuffle_within_layers snfs soft_movement sparsity_of static
        storage_bytes stored str_ straight_through top_kast training_flops uniform unstructured
    """.split(),
    "sparsejax.pruning.schedules": """
        accelerated_cubic alternating constant cosine cosine_drop cubic exponential geometric_rounds linear
        one_shot polynomial
    """.split(),
    "sparsejax.pruning.scores": """
        OBS conv_inputs grasp mfac obd snip synflow wanda woodfisher
    """.split(),
    "sparsejax.train": """
        AgainstDense DensePair FixedMask Phase PhaseTime Plan Reporter Run StepComparison StepCost TrainConfig
        TrainResult compare_steps fix_masks load_model make_plan reporter train
    """.split(),
}
